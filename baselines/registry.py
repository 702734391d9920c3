"""Every algorithm by its id, and the papers' hyper-parameters for each family of environments."""

import dataclasses
from typing import Any

from baselines.iql import IQL
from baselines.qmix import QMIX
from baselines.qtran import QTranAlt, QTranBase
from baselines.vdn import VDN
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Algorithm

ALGORITHMS: dict[str, type[Algorithm]] = {
    "iql": IQL,
    "vdn": VDN,
    "qmix": QMIX,
    "qtran-base": QTranBase,
    "qtran-alt": QTranAlt,
}

#: QTRAN's tables 3 to 5, by family; other families have table 3's. Fields that an algorithm does not have
#: are left out. Where a table is silent (widths and the last epsilon of Gaussian squeeze) the nearest
#: table's value stands.
FAMILY_SETTINGS: dict[str, dict[str, Any]] = {
    "matrix": {},  # table 3: the classes' own defaults
    "squeeze": {"replay_size": 200_000, "epsilon_end": 0.1, "epsilon_steps": 500_000},
    "predator-prey": {
        "hidden": (64, 64, 64),
        "joint_hidden": (64, 64),
        "mixer_embed": 64,
        "replay_size": 1_000_000,
        "epsilon_end": 0.1,
        "epsilon_steps": 3_000_000,
    },
}

#: Training steps: the same tables', of Logical Team Q-learning's finite game, and ROMMEO's 200 x 25.
FAMILY_ENV_STEPS = {
    "matrix": 20_000,
    "squeeze": 1_000_000,
    "predator-prey": 10_000_000,
    "team-mdp": 100_000,
    "differential": 5_000,
    "pursuit": 1_000_000,
}


def lookup(algorithm_id: str) -> type[Algorithm]:
    """The class of `algorithm_id`.

    Raises:
        BadInputError: if there is none.
    """
    if algorithm_id not in ALGORITHMS:
        raise BadInputError(f"unknown algorithm {algorithm_id!r}: choose one of {', '.join(ALGORITHMS)}")
    return ALGORITHMS[algorithm_id]


def make(algorithm_id: str, family: str = "matrix", **overrides: Any) -> Algorithm:
    """The algorithm with the paper's settings for a family of environments, some of them overridden.

    Raises:
        BadInputError: for an unknown id, an unknown setting or a value that cannot be.
    """
    algorithm = lookup(algorithm_id)
    fields = {field.name for field in dataclasses.fields(algorithm)}
    unknown = sorted(set(overrides) - fields)
    if unknown:
        raise BadInputError(
            f"{algorithm_id} has no setting {unknown[0]!r}: it has {', '.join(sorted(fields))}"
        )
    settings = {name: value for name, value in FAMILY_SETTINGS.get(family, {}).items() if name in fields}
    return algorithm(**{**settings, **overrides})
