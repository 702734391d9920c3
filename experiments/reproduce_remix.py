"""ReMIX (Mei et al., 2023) and its relatives on DCG's predator-prey and on SMAX, with verdicts.

python experiments/reproduce_remix.py [--figures ID ...] [--scale smoke|quick|long|paper] [--seeds N]
    [--out DIR] [--again] [--list]

Figures on SMAX need JaxMARL; unless --figures names them, they are left out where it is not installed.
"""

import jaxmarl_fac.all_cores  # noqa: F401  first: it has no effect once JAX is initialised

# isort: split
from collections.abc import Sequence
from pathlib import Path

from envs.errors import BadInputError
from envs.registry import lookup as lookup_environment
from experiments.claims.remix import CLAIMS
from experiments.claims.remix.smax import ABLATED_ON, ON_SMAX
from jaxmarl_fac import cli
from jaxmarl_fac.report import script


def main(argv: Sequence[str]) -> int:
    """Make the figures that the command line asks for.

    Raises:
        BadInputError: see `script.main`; and for a figure on SMAX if JaxMARL is not installed.
    """
    options = cli.peek(script.Options, argv)
    if not options.list and (options.figures is None or set(options.figures) & set(ON_SMAX)):
        try:
            lookup_environment(f"smax:{ABLATED_ON}")
        except BadInputError as error:
            if options.figures:
                raise
            print(f"{' and '.join(ON_SMAX)} are left out: {error}")
            argv = [*argv, "--figures", *(claim.id for claim in CLAIMS if claim.id not in ON_SMAX)]
    return script.main("ReMIX", CLAIMS, Path("runs/remix"), argv)


if __name__ == "__main__":
    cli.run(main)
