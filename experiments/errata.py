"""Errors in the papers behind this suite, each shown by a computation.

python experiments/errata.py [ID ...] [--list] [--write] [--out FILE]

Computes the errata with these ids, or all. --list only lists them; --write writes the page of all of them,
docs/errata.md.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from envs.errors import BadInputError
from experiments.claims.belief.errata import ERRATA as OF_BELIEF
from experiments.claims.fqi.errata import ERRATA as OF_FQI
from experiments.claims.ltql.errata import ERRATA as OF_LTQL
from experiments.claims.opponents.errata import ERRATA as OF_OPPONENTS
from experiments.claims.opponents.errata_planning import ERRATA as OF_PLANNING
from experiments.claims.options.errata import ERRATA as OF_OPTIONS
from experiments.claims.qtran.errata import ERRATA as OF_QTRAN
from experiments.claims.remix.errata import ERRATA as OF_REMIX
from jaxmarl_fac import cli
from jaxmarl_fac.files import prepare_folder, write_text
from jaxmarl_fac.report.errata import Erratum, compute, page

_BY_MODULE: tuple[Erratum, ...] = (
    *OF_LTQL,
    *OF_FQI,
    *OF_QTRAN,
    *OF_REMIX,
    *OF_OPPONENTS,
    *OF_PLANNING,
    *OF_OPTIONS,
    *OF_BELIEF,
)
_SOURCES = list(dict.fromkeys(erratum.source for erratum in _BY_MODULE))
#: By source, in the order of the page.
ERRATA = tuple(sorted(_BY_MODULE, key=lambda erratum: _SOURCES.index(erratum.source)))
BY_ID = {erratum.id: erratum for erratum in ERRATA}
COMMAND = "python experiments/errata.py"
HEAD = (
    "Errors in the papers behind this suite, and what is right. Every number below was computed by the "
    "command",
    "beside it, in seconds; an error that its command does not show is not listed. Where a paper contradicts",
    "itself or its authors' release, both sides are given.",
    "",
    f"Made by `{COMMAND} --write`.",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to do.

    Attributes:
        ids: of the errata to compute; all if none is given.
        list: only list them.
        write: write the page of all of them.
        out: the page, docs/errata.md if not given.
    """

    ids: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    list: bool = False
    write: bool = False
    out: Path | None = None


def main(argv: Sequence[str]) -> int:
    """Compute, list or write errata; returns the exit status, 1 if one is not shown.

    Raises:
        BadInputError: for an unknown id, ids beside --write, or a page that cannot be written.
    """
    options = cli.parse(Options, argv, description=__doc__)
    for wanted in options.ids:
        if wanted not in BY_ID:
            near = difflib.get_close_matches(wanted, BY_ID, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise BadInputError(f"unknown erratum {wanted!r}: {hint}--list shows all {len(BY_ID)}")
    if options.list and (options.ids or options.write):
        raise BadInputError("--list lists all errata and computes none: leave out the ids and --write")
    if options.out is not None and not options.write:
        raise BadInputError("--out is for the page: add --write")
    if options.list:
        for erratum in ERRATA:
            print(f"{erratum.id}: {erratum.source}, {erratum.place}")
        return cli.DONE
    if options.write and options.ids:
        raise BadInputError("--write writes all errata: leave out the ids")
    out = options.out or Path("docs/errata.md")
    if options.write:
        prepare_folder(out.parent)
        if out.is_dir():
            raise BadInputError(f"{out} is a folder: give the path of the page, such as {out / 'errata.md'}")
    found = {}
    for erratum in [BY_ID[wanted] for wanted in options.ids] or ERRATA:
        result = found[erratum] = compute(erratum)
        print(f"{erratum.id}: {'shown' if result.shown else 'NOT SHOWN'}")
        print(f"    {erratum.source}, {erratum.place}")
        print(
            f"    printed: {erratum.printed}\n    right:   {erratum.right}\n    {result.evidence}", flush=True
        )
    unshown = [erratum.id for erratum, result in found.items() if not result.shown]
    if options.write and not unshown:
        write_text(out, page(found, COMMAND, HEAD))
        print(f"written: {out}")
    elif options.write:
        print(f"not written: {', '.join(unshown)}")
    return cli.FAILED if unshown else cli.DONE


if __name__ == "__main__":
    cli.run(main)
