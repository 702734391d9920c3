"""Command lines: parsing, one-line errors for bad input, and exit statuses."""

import contextlib
import dataclasses
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import tyro
import yaml

from envs.errors import BadInputError
from jaxmarl_fac import job
from jaxmarl_fac.errors import DivergedError

T = TypeVar("T")

#: Exit statuses: success; a run failed; bad input; stopped by a signal.
DONE, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130


class OneOrMore:
    """The type of a flag that takes one number, a float, or several, a tuple of them."""


CONFIG = (tyro.conf.FlagConversionOff, tyro.conf.OmitArgPrefixes)


def parse(kind: type[T], argv: Sequence[str], **options: Any) -> T:
    """Parse the command line into the dataclass `kind`; `options` are tyro's, such as `default`.

    Raises:
        BadInputError: if it is not valid.
    """
    result: T = _tyro(kind, argv, **options)
    return result


def peek(kind: type[T], argv: Sequence[str]) -> T:
    """As `parse`, but ignores flags that `kind` does not have."""
    known, _ = _tyro(kind, argv, return_unknown_args=True, add_help=False)
    result: T = known
    return result


def flags(kind: Any) -> dict[str, Any]:
    """The type of each flag of a dataclass and its nested dataclasses; `tuple` for any tuple type."""
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            found |= flags(hint)
            continue
        if type(None) in get_args(hint):  # an optional value
            hint = next(choice for choice in get_args(hint) if choice is not type(None))
        found[f"--{field.name.replace('_', '-')}"] = get_origin(hint) or hint
    return found


def run(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a script's `main` on the command line and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escape characters that the terminal cannot encode
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _status(main)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush when Python exits
        status = FAILED
    sys.exit(status)


def _status(main: Callable[[Sequence[str]], int]) -> int:
    try:
        return main(sys.argv[1:])
    except BadInputError as error:
        print(f"error: {error}", file=sys.stderr)
        job.end_if_alone(BAD_INPUT)
        return BAD_INPUT
    except DivergedError as error:
        job.warn(f"error: {error}")
        return FAILED
    except KeyboardInterrupt:
        job.warn("stopped")
        job.end_if_alone(STOPPED)
        return STOPPED
    except SystemExit:  # --help
        return DONE
    except Exception as error:
        if job.count() > 1:  # the others may wait for this process
            job.leave(error)
        raise


def _tyro(kind: Any, argv: Sequence[str], **options: Any) -> Any:
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return tyro.cli(
                kind, args=_normalised(kind, argv), config=CONFIG, registry=_registry(), **options
            )
    except SystemExit as stop:
        if not stop.code:
            raise  # --help
        raise BadInputError(_first_paragraph(message.getvalue())) from None


def _normalised(kind: type, argv: Sequence[str]) -> list[str]:
    """Rewrite booleans as `--x True` or `--x False`, and lists as `--x 16 16`.

    Users write `--x` and `--no-x`, `wandb agent` writes `--x=True` and `--x=[16, 16]`, or with a space.
    """
    known, remaining, normalised = flags(kind), list(argv), []
    while remaining:
        token = remaining.pop(0)
        flag, equals, value = token.partition("=")
        name = flag.replace("_", "-")
        positive = f"--{name.removeprefix('--no-')}"
        if known.get(name) is bool:
            if not equals:
                given = remaining and remaining[0].lower() in ("true", "false")
                value = remaining.pop(0) if given else "True"
            normalised += [name, {"true": "True", "false": "False"}.get(value.lower(), value)]
        elif name not in known and name.startswith("--no-") and known.get(positive) is bool and not equals:
            normalised += [positive, "False"]
        elif (
            known.get(name) in (tuple, OneOrMore)
            and not equals
            and remaining
            and remaining[0].startswith(("[", "("))
        ):
            normalised += [name, *_items(remaining.pop(0))]
        elif known.get(name) in (tuple, OneOrMore) and value.startswith(("[", "(")):
            normalised += [name, *_items(value)]
        else:
            normalised.append(token)
    return normalised


def _items(text: str) -> list[str]:
    """The items of `[a, 'b']` or `(a, 'b')`; any other text is a single item."""
    if text[-1] != {"[": "]", "(": ")"}[text[0]]:
        return [text]
    try:
        return [str(item) for item in yaml.load(f"[{text[1:-1]}]", yaml.BaseLoader)]
    except yaml.YAMLError:
        return [text]


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Rules for paths with ~, for whole numbers such as 1e4, and for one number or several."""
    registry = tyro.constructors.ConstructorRegistry()
    # The shell does not expand the ~ of `--out=~/runs`.
    registry.primitive_rule(_parsing_rule(Path, "PATH", _path))
    registry.primitive_rule(_parsing_rule(int, "INT", _whole_number))
    registry.primitive_rule(_one_or_more)
    return registry


def _one_or_more(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """A tyro rule for flags of type `OneOrMore`."""
    if info.type is not OneOrMore:
        return None

    def read(texts: list[str]) -> float | tuple[float, ...]:
        if not texts:
            raise ValueError("it needs a number, or several")
        return float(texts[0]) if len(texts) == 1 else tuple(float(text) for text in texts)

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="FLOAT [FLOAT ...]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, int | float | tuple),
        str_from_instance=lambda value: list(map(str, value)) if isinstance(value, tuple) else [str(value)],
    )


def _parsing_rule(kind: type, metavar: str, read: Callable[[str], Any]) -> Callable[..., Any]:
    """A tyro rule that parses flags of type `kind` from one word with `read`."""

    def rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        if info.type is not kind:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=lambda texts: read(texts[0]),
            is_instance=lambda value: isinstance(value, kind),
            str_from_instance=lambda value: [str(value)],
        )

    return rule


def _path(text: str) -> Path:
    path = os.path.expanduser(text)
    if not text or path.startswith("~"):
        raise ValueError(
            f"there is no home folder for {text}" if text else "it is empty: is a variable not set?"
        )
    return Path(path)


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        with contextlib.suppress(ValueError):
            number = float(text)
            if number.is_integer() and abs(number) <= 2**53:  # 1e4, text to W&B, or 10000.0
                return int(number)
        raise


def _first_paragraph(box: str) -> str:
    """Tyro's boxed message as one line: the part above the first rule, and its suggestion."""
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    lines = [line for line in lines if line]
    rules = [i for i, line in enumerate(lines) if set(line) in ({"─"}, {"-"})]
    if "│" not in box:  # where the terminal's encoding has no box characters, tyro prints a title and a rule
        lines, rules = lines[rules[0] + 1 :], [rule - rules[0] - 1 for rule in rules[1:]]
    message = " ".join(lines[: rules[0]] if rules else lines)
    if "Perhaps you meant:" in lines:
        message += f"; perhaps you meant {lines[lines.index('Perhaps you meant:') + 1]}"
    return f"{message} (--help lists all flags)"
