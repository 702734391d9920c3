"""An experiment: everything that a result depends on, as one frozen value that can be saved and rebuilt."""

import dataclasses
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import TeamEnvironment
from envs.errors import BadInputError
from envs.ranges import KEY, Seed
from jaxmarl_fac.algorithm import Algorithm, Metrics, Params
from jaxmarl_fac.files import write_text
from jaxmarl_fac.schedule import Schedule, evenly_spread
from jaxmarl_fac.settings import Count, Must, Settings, at_least

#: Iterations that the loop can count in 32 bits, two numbers kept for keys.
MOST_ITERATIONS = 2**31 - 3
#: Seeds of one experiment.
MOST_SEEDS = 2**20
#: Counts that only the host needs.
LARGE = Must("at most 9007199254740992", lambda number: number <= 2**53, unbounded=True)

#: What saved experiments may name that has moved since, from the old name to the new one.
OLD_NAMES = {
    "baselines.actor_critic:greedy_actions_of": "baselines.probes:greedy_actions_of",
    "baselines.two_player:joint_policy": "baselines.probes:joint_policy",
    "jaxmarl_fac.inspection:joint_tables": "baselines.probes:joint_tables",
}

#: Looks into a trained learner at every evaluation: (algorithm, environment, params) to named arrays.
Probe = Callable[[Any, TeamEnvironment, Params], Metrics]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(Settings):
    """One algorithm on one environment, or on a batch of environments, over many seeds.

    Attributes:
        algorithm: with all its hyper-parameters.
        environment: with all its parameters. If `games` is above 0, every array leaf has a leading
            axis `(games,)`, and each seed plays each game: all of them train in one program.
        seeds: seed numbers. What seed i lives through does not depend on the others, but for rounding: with
            another number of lanes on a device XLA adds up sums in another order. See `bitwise_seeds`.
        env_steps: environment steps of each seed.
        games: see `environment`; 0 for a single one.
        num_envs: environments that each seed steps side by side.
        updates_per_step: gradient steps after each step of those environments.
        evaluations: greedy evaluations, evenly spread, besides the one before training.
        evaluation_episodes: episodes in one evaluation.
        root_key: from which every seed's key is folded.
        bitwise_seeds: run every lane by itself, one after the other on each device, so that a seed gives the
            same bits alone or among others, on any number of devices of one kind.
        probe: more to record at every evaluation: a function at the top level of a module.
    """

    algorithm: Algorithm
    environment: TeamEnvironment
    seeds: Annotated[tuple[int, ...], KEY]
    env_steps: Annotated[int, at_least(1), LARGE]
    games: Annotated[int, at_least(0, "0 (one environment) or more")] = 0
    num_envs: Count = 1
    updates_per_step: Count = 1
    evaluations: Count = 20
    evaluation_episodes: Count = 32
    root_key: Seed = 0
    bitwise_seeds: bool = False
    probe: Probe | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kind in (("algorithm", Algorithm), ("environment", TeamEnvironment)):
            part = getattr(self, name)
            if not isinstance(part, kind):
                raise BadInputError(f"{name} must be of type {kind.__name__}, not {type(part).__name__}")
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(self.environment)]
        if self.games and any(shape[:1] != (self.games,) for shape in shapes):
            raise BadInputError(
                f"every array of a batch of {self.games} games needs a leading axis of as many"
            )
        if not self.seeds:
            raise BadInputError("an experiment needs at least one seed")
        if len(set(self.seeds)) < len(self.seeds):
            raise BadInputError("seeds must be different numbers, each only once")
        if self.iterations > MOST_ITERATIONS:
            raise BadInputError(
                f"env_steps must be at most {MOST_ITERATIONS} for each environment, not {self.env_steps} for "
                f"{self.num_envs}: raise num_envs, or train less"
            )
        if self.evaluations > self.iterations:
            raise BadInputError(
                f"{self.evaluations} evaluations do not fit into {self.iterations} steps of "
                f"{self.num_envs} environment(s): ask for at most {self.iterations}"
            )

    @property
    def iterations(self) -> int:
        """Steps of the loop: each steps every environment once. A last partial one is made whole."""
        return -(-self.env_steps // self.num_envs)

    @property
    def schedule(self) -> Schedule:
        """When the loop learns, copies targets and evaluates."""
        algorithm = self.algorithm
        warmup = -(-algorithm.learning_starts // self.num_envs)
        if algorithm.consumes == "episodes":
            warmup = max(warmup, self.environment.time_limit - 1)  # until the first episodes are over
        copies = max(1, algorithm.target_period // self.updates_per_step)
        return Schedule(
            iterations=self.iterations,
            warmup=warmup,
            update_every=algorithm.update_period,
            updates_per_step=self.updates_per_step,
            target_every=copies * algorithm.update_period if algorithm.target_period else 0,
            evaluation_points=evenly_spread(self.iterations, self.evaluations),
        )

    @property
    def lanes(self) -> int:
        """Independent learners: seeds times games, game by game."""
        return len(self.seeds) * max(1, self.games)


def seed_numbers(count: int, first: int = 0) -> tuple[int, ...]:
    """`count` seed numbers from `first` on.

    Raises:
        BadInputError: for a count below 1, or one that no experiment can have.
    """
    if not 1 <= count <= MOST_SEEDS:
        bound = "least 1" if count < 1 else f"most {MOST_SEEDS}"
        raise BadInputError(f"the number of seeds must be at {bound}, not {count}")
    return tuple(range(first, first + count))


def to_json(value: Any) -> Any:
    """An experiment, or any part of one, as plain JSON from which `from_json` rebuilds it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": _name(type(value)), **fields}
    if isinstance(value, jax.Array | np.ndarray):
        array = np.asarray(value)
        return {
            "type": "array",
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "data": array.tolist(),
        }
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if callable(value):
        return {"type": "function", "name": _name(value)}
    return value


def from_json(value: Any) -> Any:
    """The inverse of `to_json`: lists become tuples, arrays come back with the same bits."""
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if not isinstance(value, dict):
        return value
    kind = value["type"]
    if kind == "array":
        array = np.asarray(value["data"], value["dtype"]).reshape(value["shape"])
        # A float64 model stays in NumPy: JAX would round it to float32.
        return array if array.dtype == np.float64 else jnp.asarray(array)
    if kind == "function":
        return _find(value["name"])
    return _find(kind)(**{name: from_json(item) for name, item in value.items() if name != "type"})


def save_experiment(experiment: Experiment, path: Path) -> None:
    """Write it as JSON, whole or not at all."""
    write_text(path, json.dumps(to_json(experiment)))


def load_experiment(path: Path) -> Experiment:
    """Read what `save_experiment` wrote.

    Raises:
        BadInputError: if the file is missing, cannot be read, or holds no experiment.
    """
    try:
        experiment = from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise BadInputError(f"there is no {path}: give the folder of a run") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read ({error.strerror}): give the folder of a run") from error
    except (ValueError, KeyError, TypeError, AttributeError, ImportError, RecursionError) as error:
        raise BadInputError(f"{path} holds no experiment: {error}") from error
    if not isinstance(experiment, Experiment):
        raise BadInputError(f"{path} holds no experiment")
    return experiment


def _name(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def _find(name: str) -> Any:
    name = OLD_NAMES.get(name, name)
    module, _, attribute = name.partition(":")
    if module.split(".")[0] not in ("envs", "jaxmarl_fac", "baselines"):
        raise BadInputError(f"{name} is not a part of this suite")
    return getattr(importlib.import_module(module), attribute)
