import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jaxmarl_fac import files
from jaxmarl_fac.files import locked, replacing, write_text

ROOT = Path(__file__).parents[2]


def test_text_is_utf_8_and_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "page.md"
    write_text(path, "longer than what comes")
    write_text(path, "π of \udcff")
    assert path.read_bytes() == b"\xcf\x80 of \\udcff"
    assert os.listdir(tmp_path) == ["page.md"]


def test_an_error_while_writing_leaves_the_old(tmp_path):
    path = tmp_path / "page.md"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["page.md"]


def test_bad_places(tmp_path, bad_input):
    (tmp_path / "file").touch()
    for path, why in (
        (tmp_path, "Is a directory"),
        (tmp_path / "missing" / "x", "No such file or directory"),
        (tmp_path / "file" / "x", "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with bad_input(f"{path} cannot be written: {why}"), replacing(path):
            pass
    assert os.listdir(tmp_path) == ["file"]
    assert not list(tmp_path.parent.glob(".*.tmp"))


def test_a_folder_is_locked_against_others_while_the_block_runs(tmp_path, bad_input):
    folder = tmp_path / "run"
    with (
        locked(folder),
        bad_input(
            f"{folder} is in use by process {os.getpid()} on {socket.gethostname()}: wait until it ends"
        ),
        locked(folder),
    ):
        pass
    with locked(folder):  # what the one before left says nothing
        pass
    with locked(folder / "below"), locked(folder):
        pass


HOLD = """
import sys, time
from pathlib import Path
from jaxmarl_fac.files import locked
with locked(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_no_lock(tmp_path, bad_input):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout.readline() == b"in\n"
    with bad_input(f"is in use by process {process.pid} on "), locked(tmp_path):
        pass
    process.kill()
    process.communicate()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("missing", ["module", "locks"])
def test_where_there_are_no_locks_nobody_is_kept_out(tmp_path, monkeypatch, missing):
    """No POSIX system, or a network file system without them."""

    def refused(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if missing == "module":
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr(files.fcntl, "flock", refused)
    with locked(tmp_path), locked(tmp_path):
        pass
