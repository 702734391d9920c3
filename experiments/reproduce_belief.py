"""Hidden state: particle filters, bounds and public beliefs (thesis, chapter 5): every figure, with verdicts.

python experiments/reproduce_belief.py [--figures ID ...] [--scale smoke|quick|long|paper] [--seeds N]
    [--out DIR] [--again] [--list]
"""

import jaxmarl_fac.all_cores  # noqa: F401  first: it has no effect once JAX is initialised

# isort: split
from collections.abc import Sequence
from pathlib import Path

from experiments.claims.belief import CLAIMS
from jaxmarl_fac import cli
from jaxmarl_fac.report import script


def main(argv: Sequence[str]) -> int:
    """Make the figures that the command line asks for."""
    return script.main("Hidden state and public beliefs", CLAIMS, Path("runs/belief"), argv)


if __name__ == "__main__":
    cli.run(main)
