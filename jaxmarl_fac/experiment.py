"""An experiment: everything that a result depends on, as one frozen value that can be saved and rebuilt."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import numpy as np

from envs.base import TeamEnvironment
from envs.errors import BadInputError
from envs.ranges import KEY, Seed
from jaxmarl_fac.algorithm import Algorithm, Learner, Metrics, Params
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.schedule import Schedule, evenly_spread
from jaxmarl_fac.settings import (
    Constraint,
    Count,
    Leaf,
    Settings,
    at_least,
    can_vary,
    leaves,
    replaced,
    traced,
)

#: Iterations that the loop can count in 32 bits, two numbers kept for keys.
MAX_ITERATIONS = 2**31 - 3
#: Seeds of one experiment.
MAX_SEEDS = 2**20
#: Updates after one step: each is compiled by itself, which takes a second or more.
MAX_UPDATES_PER_STEP = 256
#: Counts that only the host needs.
LARGE = Constraint("at most 9007199254740992", lambda number: number <= 2**53, unbounded=True)
UPDATES = Constraint(
    f"at most {MAX_UPDATES_PER_STEP}, as each is compiled by itself",
    lambda number: number <= MAX_UPDATES_PER_STEP,
)

#: Of float32 products on accelerators.
MatmulPrecision = Literal["default", "high", "highest", "bfloat16", "bfloat16_3x", "tensorfloat32", "float32"]

#: Settings of the algorithm by name, with the value that each variant has.
Variants = tuple[tuple[str, tuple[float, ...]], ...]

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
        updates_per_step: gradient steps after each step of those environments, at most
            `MAX_UPDATES_PER_STEP`.
        evaluations: greedy evaluations, evenly spread, besides the one before training.
        evaluation_episodes: episodes in one evaluation.
        root_key: from which every seed's key is folded.
        bitwise_seeds: run every lane by itself, one after the other on each device, so that a seed gives the
            same bits alone or among others, on any number of devices of one kind.
        matmul_precision: how an accelerator rounds the factors of float32 products, as
            `jax.default_matmul_precision` takes it. By default not at all: small learners are not faster for
            the bfloat16 that TPUs take by themselves, or the TensorFloat-32 of GPUs. CPUs never round.
        probe: more to record at every evaluation: a function at the top level of a module.
        variants: real-valued settings of the algorithm by name, each with as many values: variant i has the
            i-th of each, and every seed plays every game with every variant, side by side in one program.
            They must decide no shape and no branch of Python code. See `grid`. Kept as a tuple of pairs.

    Raises:
        BadInputError: for the first field that is out of its range, or fields that do not fit together.

    Example:
        >>> import baselines, envs
        >>> experiment = Experiment(
        ...     algorithm=baselines.make("qmix"), environment=envs.make("two-step"),
        ...     seeds=range(8), env_steps=1000, num_envs=4
        ... )
        >>> experiment.iterations, experiment.lanes
        (250, 8)
        >>> several = grid(learning_rate=(1e-4, 1e-3), gamma=(0.9, 0.99))
        >>> rates = dataclasses.replace(experiment, variants=several)
        >>> rates.lanes, rates.variant_settings[1]
        (32, {'learning_rate': 0.0001, 'gamma': 0.99})
        >>> Experiment(
        ...     algorithm=baselines.make("ddpg"), environment=envs.make("differential"), seeds=(), env_steps=9
        ... )
        Traceback (most recent call last):
        envs.errors.BadInputError: an experiment needs at least one seed
    """

    algorithm: Algorithm
    environment: TeamEnvironment
    seeds: Annotated[tuple[int, ...], KEY]
    env_steps: Annotated[int, at_least(1), LARGE]
    games: Annotated[int, at_least(0, "0 (one environment) or more")] = 0
    num_envs: Count = 1
    updates_per_step: Annotated[int, at_least(1), UPDATES] = 1
    evaluations: Count = 20
    evaluation_episodes: Count = 32
    root_key: Seed = 0
    bitwise_seeds: bool = False
    matmul_precision: MatmulPrecision = "highest"
    probe: Probe | None = None
    variants: Variants = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "variants", _as_variants(self.variants))
        super().__post_init__()
        if isinstance(self.algorithm, type):
            raise BadInputError(
                f"algorithm must be an algorithm, not the class {self.algorithm.__name__}: call it with its "
                "settings"
            )
        if not callable(getattr(self.algorithm, "bind", None)):
            raise BadInputError(
                f"algorithm must have a method bind(game, num_envs), which "
                f"{type(self.algorithm).__name__} lacks"
            )
        if not isinstance(self.environment, TeamEnvironment):
            raise BadInputError(
                f"environment must be of type TeamEnvironment, not {type(self.environment).__name__}"
            )
        if not (self.probe is None or callable(self.probe)):
            raise BadInputError(f"probe must be a function or None, not {type(self.probe).__name__}")
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(self.environment)]
        if self.games and any(shape[:1] != (self.games,) for shape in shapes):
            raise BadInputError(
                f"every array of a batch of {self.games} games needs a leading axis of as many"
            )
        self._check_variants()
        if not self.seeds:
            raise BadInputError("an experiment needs at least one seed")
        if len(set(self.seeds)) < len(self.seeds):
            raise BadInputError("seeds must be different numbers, each only once")
        if self.iterations > MAX_ITERATIONS:
            raise BadInputError(
                f"env_steps must be at most {MAX_ITERATIONS} for each environment, not {self.env_steps} for "
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
    def first_game(self) -> TeamEnvironment:
        """The game, or the first of a batch of games."""
        if not self.games:
            return self.environment
        first: TeamEnvironment = jax.tree.map(lambda leaf: leaf[0], self.environment)
        return first

    @functools.cached_property
    def game(self) -> GameSpec:
        """Facts about the game, the same for all of a batch."""
        return GameSpec.of(self.first_game)

    @functools.cached_property
    def variant_settings(self) -> tuple[dict[str, float], ...]:
        """What each variant changes in the algorithm; once nothing if there are no variants."""
        count = len(self.variants[0][1]) if self.variants else 1
        return tuple({name: values[i] for name, values in self.variants} for i in range(count))

    def variant_algorithm(self, index: int = 0) -> Algorithm:
        """The algorithm of one variant."""
        return replaced(self.algorithm, **self.variant_settings[index])

    def lane_algorithm(self, settings: Mapping[str, jax.Array]) -> Algorithm:
        """The algorithm of one lane, whose `settings` are scalars that may be traced."""
        return traced(self.algorithm, settings) if settings else self.algorithm

    def bind(
        self, environment: TeamEnvironment | None = None, settings: Mapping[str, jax.Array] | None = None
    ) -> Learner:
        """The learner of one of the experiment's games and variants; of the first if none is given.

        Args:
            environment: the game.
            settings: those in which the variant differs, as scalars that may be traced.

        Raises:
            BadInputError: if the algorithm cannot play it.
        """
        game = self.game if environment is None else self.game.with_parameters(environment)
        algorithm = self.variant_algorithm() if settings is None else self.lane_algorithm(settings)
        return algorithm.bind(game, self.num_envs)

    @functools.cached_property
    def schedule(self) -> Schedule:
        """When the loop learns, copies targets and evaluates.

        Raises:
            BadInputError: if the algorithm cannot play the game, or targets would have to be copied amid the
                updates of one iteration.
        """
        warmup, update_every, target_every = self.bind().periods
        copies, rest = divmod(target_every, self.updates_per_step)
        if rest:
            raise BadInputError(
                f"target_period must be a multiple of updates_per_step ({self.updates_per_step}), not "
                f"{target_every}: targets are copied between iterations"
            )
        return Schedule(
            iterations=self.iterations,
            warmup=warmup,
            update_every=update_every,
            updates_per_step=self.updates_per_step,
            target_every=copies * update_every,
            eval_iterations=evenly_spread(self.iterations, self.evaluations),
        )

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of what the seeds train on, in the order of the lanes: variants, and within each its games.

        Such as "learning_rate 0.001, game 2"; once "" if there is only one.
        """
        games = [f"game {game}" for game in range(self.games)] or [""]
        variants = [
            ", ".join(f"{name} {value:g}" for name, value in settings.items())
            for settings in self.variant_settings
        ]
        return tuple(", ".join(filter(None, names)) for names in itertools.product(variants, games))

    @property
    def lanes(self) -> int:
        """Independent learners: seeds times games times variants, in the order of `groups`."""
        return len(self.seeds) * max(1, self.games) * len(self.variant_settings)

    def _check_variants(self) -> None:
        """Refuse variants of what is no real number, and values that the algorithm does not allow."""
        if not self.variants:
            return
        known: dict[str, Leaf] = leaves(self.algorithm) if dataclasses.is_dataclass(self.algorithm) else {}
        varying = [name for name, leaf in known.items() if can_vary(leaf)]
        for name, _ in self.variants:
            if name not in varying:
                what = (
                    "cannot vary within one program, because shapes or the code itself depend on it"
                    if name in known
                    else f"is no setting of {type(self.algorithm).__name__}"
                )
                raise BadInputError(f"{name} {what}: choose from {', '.join(varying) or 'nothing'}")
        if len({len(values) for _, values in self.variants}) > 1:
            lengths = ", ".join(f"{len(values)} of {name}" for name, values in self.variants)
            raise BadInputError(f"variants need as many values of each setting, not {lengths}")
        if not self.variants[0][1]:
            raise BadInputError(f"variants: {self.variants[0][0]} needs at least one value")
        if len(set(zip(*(values for _, values in self.variants), strict=True))) < len(self.variant_settings):
            raise BadInputError("variants must be different, each only once")
        for index in range(len(self.variant_settings)):
            self.variant_algorithm(index)  # refuses values out of range


def grid(**values: Sequence[float]) -> Variants:
    """All combinations of some settings' values, as `Experiment.variants`; the last setting varies fastest.

    Args:
        values: of each setting by name.
    """
    combinations = itertools.product(*values.values())
    return tuple(zip(values, zip(*combinations, strict=True), strict=True))


def _as_variants(given: Any) -> Variants:
    """A mapping, or pairs, as pairs of tuples.

    Raises:
        BadInputError: for anything else.
    """
    try:
        pairs = given.items() if isinstance(given, Mapping) else given
        return tuple((str(name), tuple(float(value) for value in values)) for name, values in pairs)
    except (TypeError, ValueError) as error:
        raise BadInputError(
            f"variants must have numbers by setting, such as {{'learning_rate': (1e-4, 1e-3)}}, not {given!r}"
        ) from error


def seed_numbers(count: int, first: int = 0) -> tuple[int, ...]:
    """`count` seed numbers from `first` on.

    Raises:
        BadInputError: for a count below 1, or one that no experiment can have.
    """
    if not 1 <= count <= MAX_SEEDS:
        bound = "least 1" if count < 1 else f"most {MAX_SEEDS}"
        raise BadInputError(f"the number of seeds must be at {bound}, not {count}")
    return tuple(range(first, first + count))
