"""QTRAN (seed paper 003): every table and figure of the paper, with verdicts.

python experiments/reproduce_qtran.py [--figures ID ...] [--scale smoke|quick|paper] [--seeds N]
    [--out DIR] [--again] [--list]
"""

import jaxmarl_fac.all_cores  # noqa: F401  first of all: once JAX has its devices it is too late

# isort: split
from collections.abc import Sequence
from pathlib import Path

import qtran_learning
import qtran_matrix

from jaxmarl_fac import cli, report

CLAIMS = (*qtran_matrix.CLAIMS, *qtran_learning.CLAIMS)


def main(argv: Sequence[str]) -> int:
    """Make the figures that the command line asks for."""
    return report.main("QTRAN", CLAIMS, Path("runs/qtran"), argv)


if __name__ == "__main__":
    cli.run(main)
