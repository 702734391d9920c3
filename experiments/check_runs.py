"""Check command lines of train.py without running them.

Reads a JSON list of command lines from stdin and writes the list of their `problem`s to stdout. It runs as a
process of its own, because building a game initialises JAX's backends, which sweep.py must not do.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from typing import Any

from envs.errors import BadInputError
from experiments import train
from jaxmarl_fac import cli
from jaxmarl_fac.saved import to_json
from jaxmarl_fac.settings import Leaf, can_vary, leaves

#: In place of a flag that is no setting of the algorithm.
NO_SETTING = Leaf(None, None, "")


def problem(argv: Sequence[str]) -> dict[str, Any]:
    """Problems of a command line of `--name=value` flags; empty if there are none.

    Returns:
        `bad`: an error message for invalid input. `unplayable`: an error message if the algorithm cannot play
        the game. `unknown`: the flags that this algorithm and game do not have. `varying`: of those that can
        have several values within one program, the values. `experiment`: a digest of what it is a run of.
    """
    found: dict[str, Any] = {"bad": "", "unplayable": "", "unknown": [], "varying": {}, "experiment": ""}
    try:
        pair = cli.peek(train.Pair, argv)
        algorithm, _, parameters = train.resolve(pair)
        known = cli.flags(train.settings_class(algorithm, parameters))
        names = [flag.partition("=")[0] for flag in argv]
        found["unknown"] = [name for name in names if name.replace("_", "-") not in known]
        if found["unknown"]:
            found["unplayable"] = f"{pair.algo} on {pair.env or pair.payoff} has no {found['unknown'][0]}"
            return found
        _, experiment = train.prepare(argv)
    except BadInputError as error:
        return found | {"bad": str(error)}
    try:
        experiment.bind()
    except BadInputError as error:
        found["unplayable"] = str(error)
        return found
    if experiment.variants:
        return found | {
            "bad": f"{experiment.variants[0][0]} must be a number, not a list: list the values of a sweep"
        }
    settings = leaves(experiment.algorithm)
    given = {flag: settings.get(flag[2:].replace("-", "_"), NO_SETTING) for flag in names}
    found["varying"] = {flag: leaf.value for flag, leaf in given.items() if can_vary(leaf)}
    found["experiment"] = hashlib.sha256(json.dumps(to_json(experiment)).encode()).hexdigest()
    return found


if __name__ == "__main__":
    json.dump([problem(argv) for argv in json.load(sys.stdin)], sys.stdout)
