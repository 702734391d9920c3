import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from envs.errors import BadInputError
from jaxmarl_fac import cli


@dataclasses.dataclass(frozen=True)
class Options:
    """Something.

    Attributes:
        seeds: how many.
        name: of it.
    """

    seeds: int = 1
    name: str = "x"


def test_flags_become_a_value():
    assert cli.parse(Options, ["--seeds", "3"]) == Options(seeds=3)
    assert cli.parse(Options, ["--name=y"], default=Options(seeds=5)) == Options(5, "y")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--seeds", "many"], "--seeds: invalid literal for int() with base 10: 'many'"),
        (["--seedz", "3"], "Unrecognized options: --seedz, 3; perhaps you meant --seeds INT"),
        (["--seeds"], "--seeds"),
    ],
)
def test_what_cannot_be_parsed_is_told_in_one_line(argv, said):
    with pytest.raises(BadInputError) as error:
        cli.parse(Options, argv)
    assert said in str(error.value)
    assert "\n" not in str(error.value) and "│" not in str(error.value)


def test_the_line_is_told_in_any_encoding():
    code = (
        "import dataclasses; from jaxmarl_fac import cli; "
        "O = dataclasses.make_dataclass('O', [('seeds', int, 1)]); cli.run(lambda argv: cli.parse(O, argv))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--seeds", "many"],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == cli.BAD_INPUT
    assert "--seeds: invalid literal for int() with base 10: 'many'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_is_not_an_error(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse(Options, ["--help"])
    assert not stop.value.code
    assert "--seeds INT" in capsys.readouterr().out


def test_peek_passes_over_what_it_does_not_know():
    assert cli.peek(Options, ["--learning-rate", "3", "--seeds", "4", "--help"]) == Options(seeds=4)


def test_bad_input_is_one_line_and_status_2(capsys, monkeypatch):
    def main(argv):
        raise BadInputError(f"no {argv[0]}")

    monkeypatch.setattr(sys, "argv", ["script", "luck"])
    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: no luck\n"


@dataclasses.dataclass(frozen=True)
class Places:
    """Where things are."""

    out: Path = Path("runs")
    gif: Path | None = None
    runs: tuple[Path, ...] = ()


def test_the_home_folder_is_expanded_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.parse(Places, ["--out=~/x", "--gif", "~", "--runs", "~/a", "b~"]) == Places(
        tmp_path / "x", tmp_path, (tmp_path / "a", Path("b~"))
    )


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("~no-such-user/c", "there is no home folder for ~no-such-user/c"),
        ("", "it is empty: is a variable not set"),
    ],
)
def test_an_empty_path_or_an_unknown_home_folder_is_refused(path, says):
    with pytest.raises(BadInputError, match=f"^Error parsing --out: {says}"):
        cli.parse(Places, [f"--out={path}"])


def test_every_character_can_be_told_in_every_encoding(monkeypatch):
    streams = [io.TextIOWrapper(io.BytesIO(), "cp1252") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    monkeypatch.setattr(sys, "argv", ["script", os.fsdecode(b"\xff")])

    def main(argv):
        print("π é")
        raise BadInputError(f"no {argv[0]}")

    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert stop.value.code == cli.BAD_INPUT
    for stream, said in zip(streams, (b"\\u03c0 \xe9\n", b"error: no \\udcff\n"), strict=True):
        stream.flush()
        assert stream.buffer.getvalue() == said


def test_a_reader_who_has_seen_enough_is_no_error(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        patch.setattr(sys, "argv", ["script"])
        with pytest.raises(SystemExit) as stop:
            cli.run(lambda argv: print("much") or cli.DONE)
        print("more, as Python does when it exits", flush=True)
    assert stop.value.code == cli.FAILED
    assert capsys.readouterr().err == ""


@dataclasses.dataclass(frozen=True)
class Inner:
    """Settings inside others, as train.py's."""

    double_q: bool = False
    agent_ids: bool = True
    hidden: tuple[int, ...] = (64,)
    own_prior: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Outer:
    """Some."""

    inner: Inner = dataclasses.field(default_factory=Inner)
    tags: tuple[str, ...] = ()
    steps: int | None = None
    group: str | None = None
    list: bool = False


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        # as people write them
        ("--double-q --no-agent-ids", Outer(Inner(double_q=True, agent_ids=False))),
        ("--hidden 16 16 --list --steps 3", Outer(Inner(hidden=(16, 16)), steps=3, list=True)),
        ("--hidden --own-prior -inf -1", Outer(Inner(hidden=(), own_prior=(-float("inf"), -1.0)))),
        ("--double-q --no-double-q", Outer()),
        # as `wandb agent` writes them
        ("--double_q=True --agent_ids=False", Outer(Inner(double_q=True, agent_ids=False))),
        ("--double_q=False|--agent_ids=true|--list=false", Outer()),
        ("--hidden=[16, 16]|--tags=['a', 'b c']", Outer(Inner(hidden=(16, 16)), tags=("a", "b c"))),
        ("--hidden=(16,)|--own_prior=[-inf, 1e-05]", Outer(Inner(False, True, (16,), (-float("inf"), 1e-5)))),
        ("--hidden=[]|--own_prior=None|--group=None", Outer(Inner(hidden=()))),
        ("--double_q True|--hidden [16,32]", None),  # one argument each: not understood
        ("--double_q|True|--hidden|[16,32]", Outer(Inner(double_q=True, hidden=(16, 32)))),
        ("--steps=1e4", Outer(steps=10_000)),
        ("--steps=10000.0", Outer(steps=10_000)),
        ("--steps=9007199254740993", Outer(steps=2**53 + 1)),
        # what only looks like it
        ("--group=True --tags=True", Outer(group="True", tags=("True",))),
        ("--tags=[a|--group=[a]", Outer(tags=("[a",), group="[a]")),
    ],
)
def test_booleans_lists_and_whole_numbers(argv, wanted):
    argv = argv.split("|" if "|" in argv else " ")
    if wanted is None:
        with pytest.raises(BadInputError):
            cli.parse(Outer, argv)
    else:
        assert cli.parse(Outer, argv) == wanted


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--steps=1.5", "invalid literal for int() with base 10: '1.5'"),
        ("--steps=1e300", "invalid literal for int() with base 10: '1e300'"),
        ("--steps=inf", "invalid literal for int() with base 10: 'inf'"),
        ("--double-q=maybe", "invalid choice 'maybe' for argument '--double-q'"),
        ("--hidden=[16,x]", "--hidden: Could not find valid parse for arguments: ['16', 'x']"),
        ("--hidden=[[16]]", "--hidden"),
        ("--no-steps", "Unrecognized options: --no-steps"),
    ],
)
def test_what_is_no_boolean_list_or_whole_number(flag, said, bad_input):
    with bad_input(said):
        cli.parse(Outer, [flag])
