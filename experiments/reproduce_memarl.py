"""Reasoning about the others (thesis, chapter 3; ROMMEO): every figure, with verdicts.

python experiments/reproduce_memarl.py [--figures ID ...] [--scale smoke|quick|paper] [--seeds N]
    [--out DIR] [--again] [--list]
"""

import jaxmarl_fac.all_cores  # noqa: F401  first of all: once JAX has its devices it is too late

# isort: split
from collections.abc import Sequence
from pathlib import Path

import memarl_deep
import memarl_matrix

from jaxmarl_fac import cli, report

CLAIMS = (*memarl_matrix.CLAIMS, *memarl_deep.CLAIMS)


def main(argv: Sequence[str]) -> int:
    """Make the figures that the command line asks for."""
    return report.main("Reasoning about the others", CLAIMS, Path("runs/memarl"), argv)


if __name__ == "__main__":
    cli.run(main)
