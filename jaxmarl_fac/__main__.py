"""The suite's commands, from any folder.

python -m jaxmarl_fac COMMAND [flags of the script]     jaxmarl-fac COMMAND ... is the same

A command is the script of that name in `experiments/`, which the wheel installs too:
"""

import ast
import importlib.util
import runpy
import sys
from pathlib import Path

from envs.errors import BadInputError
from jaxmarl_fac import cli

#: Where the scripts are.
PACKAGE = "experiments"
COMMANDS = (
    *("train", "play", "plot", "compare", "sweep", "benchmark", "errata"),
    *(
        f"reproduce_{paper}"
        for paper in ("qtran", "qplex", "remix", "fqi", "ltql", "memarl", "options", "belief")
    ),
)


def run(command: str) -> None:
    """Run a script as if it had been called by its path, with the flags in `sys.argv[1:]`."""
    runpy.run_module(f"{PACKAGE}.{command}", run_name="__main__", alter_sys=True)


def usage() -> str:
    """Text of `--help`: the docstring above, and the first line of each command's."""
    folder = Path(importlib.util.find_spec(PACKAGE).submodule_search_locations[0])  # type: ignore[union-attr, index]
    lines = []
    for command in COMMANDS:
        source = (folder / f"{command}.py").read_text(encoding="utf-8")
        lines.append(f"  {command:18} {(ast.get_docstring(ast.parse(source)) or '').splitlines()[0]}")
    return "\n".join((__doc__ or "", *lines))


def main() -> None:
    """Run the command named by the first argument; list them if there is none."""
    command, sys.argv[1:] = (sys.argv[1] if sys.argv[1:] else "--help"), sys.argv[2:]
    if command in COMMANDS:
        run(command)
    else:
        cli.run(lambda _: _explain(command))


def _explain(command: str) -> int:
    if command not in ("-h", "--help"):
        raise BadInputError(f"unknown command {command!r}: choose one of {', '.join(COMMANDS)}")
    print(usage())
    return cli.DONE


if __name__ == "__main__":
    main()
