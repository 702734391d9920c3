"""JaxMARL's published settings, and what they are called here, for `benchmark.py peers`.

Every setting of theirs is mapped to one of ours, known to matter for nothing that is measured, or named as a
difference; one that this module does not know is refused.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.errors import BadInputError
from experiments.sweep_file import read_yaml

#: Within a checkout of JaxMARL.
FOLDER = Path("baselines", "QLearning")


@dataclasses.dataclass(frozen=True)
class Pair:
    """A learner of JaxMARL's on a game, and ours.

    Attributes:
        script: of JaxMARL.
        config: its settings.
        algo: id of our algorithm.
        env: id of our game.
        env_steps: of each seed where returns are compared; 0 where a training that has learned anything takes
            more than minutes on two cores.
        overrides: settings of theirs that are not the file's.
        differences: between both learners, whatever their settings.
    """

    script: str
    config: str
    algo: str
    env: str
    env_steps: int
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    differences: tuple[str, ...] = ()

    def script_in(self, checkout: Path) -> Path:
        """The script's path, absolute."""
        return (checkout / FOLDER / self.script).absolute()

    def config_in(self, checkout: Path) -> Path:
        """The path of its settings."""
        return checkout / FOLDER / "config" / "alg" / self.config


PAIRS = {
    "vdn-mpe": Pair(
        "vdn_ff.py",
        "vdn_ff_mpe.yaml",
        "vdn",
        "mpe:simple_spread",
        500_000,
        differences=(
            "targets are of the observation after a step, theirs of the one NUM_STEPS steps later (they add "
            "each rollout to flashbax's flat buffer as if its steps were environments side by side)",
        ),
    ),
    "qmix-mpe": Pair(
        "qmix_rnn.py",
        "ql_rnn_mpe.yaml",
        "qmix",
        "mpe:simple_spread",
        200_000,
        differences=(
            "every step of an episode is learned from, which takes one observation more than theirs, whose "
            "last step is left out",
        ),
    ),
    "pqn-mpe": Pair(
        "pqn_vdn_ff.py",
        "pqn_vdn_ff_mpe.yaml",
        "pqn-vdn",
        "mpe:simple_spread",
        100_000,
        differences=("their network has a batch norm whose output is not used",),
    ),
    "qmix-smax": Pair(
        "qmix_rnn.py",
        "ql_rnn_smax.yaml",
        "qmix",
        "smax:3m",
        0,
        {"MAP_NAME": "3m"},
        (
            "batches are of whole episodes, at most 101 steps, where theirs are of all that an environment "
            "did in a rollout, one battle after the other",
            "updates are evenly spread over a rollout, theirs follow it",
        ),
    ),
}

#: Settings of evaluations and logs, and the length of training: the benchmark chooses them for both.
CHOSEN = {
    "TOTAL_TIMESTEPS",
    "TEST_DURING_TRAINING",
    "TEST_INTERVAL",
    "TEST_NUM_STEPS",
    "TEST_NUM_ENVS",
    "ALG_NAME",
    "LOG_AGENTS_SEPARATELY",
}
#: Settings with the one value that has no counterpart here, or needs none.
FIXED = {"TAU": 1, "MEMORY_WINDOW": 0, "NORM_INPUTS": False, "NORM_TYPE": "layer_norm"}
COMMON = {
    "NUM_ENVS",
    "NUM_STEPS",
    "HIDDEN_SIZE",
    "EPS_START",
    "EPS_FINISH",
    "EPS_DECAY",
    "MAX_GRAD_NORM",
    "NUM_EPOCHS",
    "LR",
    "LR_LINEAR_DECAY",
    "GAMMA",
    "ENV_NAME",
    "ENV_KWARGS",
}
REPLAY = {"BUFFER_SIZE", "BUFFER_BATCH_SIZE", "TARGET_UPDATE_INTERVAL", "LEARNING_STARTS"}
#: What else is mapped, by our algorithm.
MAPPED = {
    "vdn": COMMON | REPLAY | {"NUM_LAYERS"},
    "qmix": COMMON
    | REPLAY
    | {"MIXER_EMBEDDING_DIM", "MIXER_HYPERNET_HIDDEN_DIM", "MIXER_INIT_SCALE", "MAP_NAME", "REW_SCALE"},
    "pqn-vdn": COMMON | {"NUM_LAYERS", "NUM_MINIBATCHES", "LAMBDA"},
}
#: JaxMARL's names of the games.
ENVIRONMENTS = {"mpe:simple_spread": "MPE_simple_spread_v3", "smax:3m": "HeuristicEnemySMAX"}


def read_settings(pair: Pair, checkout: Path) -> dict[str, Any]:
    """JaxMARL's settings of a pair.

    Raises:
        BadInputError: if the script or its settings are not in the checkout, or not as they are known here.
    """
    for path in (FOLDER / pair.script, FOLDER / "config" / "alg" / pair.config):
        if not (checkout / path).is_file():
            raise BadInputError(
                f"{checkout} is no checkout of JaxMARL: it has no {path}; "
                "git clone https://github.com/FLAIROx/JaxMARL"
            )
    path = pair.config_in(checkout)
    read = read_yaml(path, "JaxMARL's settings")
    if not isinstance(read, dict):
        raise BadInputError(f"{path} must be a table of settings")
    settings = {**read, **pair.overrides}
    known = MAPPED[pair.algo]
    if unknown := sorted(set(settings) - known - CHOSEN - set(FIXED)):
        raise BadInputError(f"{path} has a setting that is not mapped to ours: {', '.join(unknown)}")
    if missing := sorted(known - set(settings) - {"REW_SCALE", "MAP_NAME"}):
        raise BadInputError(f"{path} lacks {', '.join(missing)}")
    expected = {**FIXED, "ENV_NAME": ENVIRONMENTS[pair.env], "walls_cause_death": True}
    for name, value in {**settings, **settings["ENV_KWARGS"]}.items():
        if value != expected.get(name, value):
            raise BadInputError(f"{path}: {name} must be {expected[name]!r}, as it is here, not {value!r}")
    return settings


def our_settings(pair: Pair, settings: Mapping[str, Any], env_steps: int) -> dict[str, Any]:
    """What `benchmark_peers_ours.py` is to train so that it equals what JaxMARL trains by `settings`.

    Args:
        pair: both learners.
        settings: JaxMARL's.
        env_steps: of the training in which exploration falls.
    """
    mapped: dict[str, Any] = {
        "optimiser": "radam",
        "learning_rate": settings["LR"],
        "learning_rate_schedule": "linear" if settings["LR_LINEAR_DECAY"] else "constant",
        "max_grad_norm": settings["MAX_GRAD_NORM"],
        "gamma": settings["GAMMA"],
        "epsilon_start": settings["EPS_START"],
        "epsilon_end": settings["EPS_FINISH"],
        "epsilon_steps": max(1, round(settings["EPS_DECAY"] * env_steps)),
    }
    hidden = settings["HIDDEN_SIZE"]
    if pair.algo == "pqn-vdn":
        mapped |= {
            "hidden": [hidden] * settings["NUM_LAYERS"],
            "layer_norm": True,
            "rollout_length": settings["NUM_STEPS"],
            "epochs": settings["NUM_EPOCHS"],
            "minibatches": settings["NUM_MINIBATCHES"],
            "td_lambda": settings["LAMBDA"],
        }
    else:
        mapped |= {
            "batch_size": settings["BUFFER_BATCH_SIZE"],
            "replay_size": int(settings["BUFFER_SIZE"]),
            "learning_starts": (warmup(pair, settings) + 1) * settings["NUM_STEPS"] * settings["NUM_ENVS"],
            "update_period": _divided(settings, "NUM_STEPS", "NUM_EPOCHS"),
            "target_period": settings["TARGET_UPDATE_INTERVAL"] * settings["NUM_EPOCHS"],
        }
    if pair.algo == "vdn":
        # Of NUM_LAYERS their network leaves out two: with 2 it has a linear layer alone.
        mapped |= {"hidden": [hidden] * max(0, settings["NUM_LAYERS"] - 2), "double_q": False}
    if pair.algo == "qmix":
        mapped |= {
            "hidden": [hidden],
            "recurrent": True,
            "last_actions": False,
            "consumes": "episodes",
            "mixer_embed": settings["MIXER_EMBEDDING_DIM"],
            "hypernet_hidden": [settings["MIXER_HYPERNET_HIDDEN_DIM"]],
            "mixer_init_scale": settings["MIXER_INIT_SCALE"],
            "double_q": True,
        }
    # `walls_cause_death` is JaxMARL's default, and no parameter here.
    game = {name: value for name, value in settings["ENV_KWARGS"].items() if name != "walls_cause_death"}
    return {
        "algo": pair.algo,
        "env": pair.env,
        "settings": mapped,
        "game": {**game, "time_limit_terminates": True},  # JaxMARL's learners do not bootstrap there
        "num_envs": settings["NUM_ENVS"],
        "iterations_per_update": settings["NUM_STEPS"],
    }


def warmup(pair: Pair, settings: Mapping[str, Any]) -> int:
    """Updates of JaxMARL's that learn nothing, as there is too little in replay."""
    if pair.algo == "pqn-vdn":
        return 0
    before = settings["LEARNING_STARTS"] // (settings["NUM_STEPS"] * settings["NUM_ENVS"])
    # A batch of theirs is drawn once each environment has stored as many episodes as it has.
    return int(max(before, settings["BUFFER_BATCH_SIZE"] - 1 if pair.algo == "qmix" else 0))


def differences(pair: Pair, settings: Mapping[str, Any]) -> list[str]:
    """In what ours differs from theirs besides what is counted, as sentences without a subject."""
    found = list(pair.differences)
    if settings.get("REW_SCALE", 1) != 1:
        found.append(f"rewards are as the game gives them, theirs times {settings['REW_SCALE']:g}")
    return found


def _divided(settings: Mapping[str, Any], name: str, by: str) -> int:
    whole, rest = divmod(settings[name], settings[by])
    if rest:
        raise BadInputError(f"{by}, {settings[by]}, must divide {name}, {settings[name]}")
    return int(whole)
