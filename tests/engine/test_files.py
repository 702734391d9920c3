import os

import pytest

from jaxmarl_fac.files import replacing, write_text


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
