"""Logical Team Q-learning (Cassano and Sayed, 2021): its games, its peers and its operators.

python experiments/reproduce_ltql.py [--figures ID ...] [--scale smoke|quick|long|paper] [--seeds N]
    [--out DIR] [--again] [--list]
"""

import jaxmarl_fac.all_cores  # noqa: F401  first: it has no effect once JAX is initialised

# isort: split
from collections.abc import Sequence
from pathlib import Path

from experiments.claims.ltql import CLAIMS
from jaxmarl_fac import cli
from jaxmarl_fac.report import script


def main(argv: Sequence[str]) -> int:
    """Make the figures that the command line asks for."""
    return script.main("Logical Team Q-learning", CLAIMS, Path("runs/ltql"), argv)


if __name__ == "__main__":
    cli.run(main)
