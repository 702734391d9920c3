"""The interface of algorithms: settings that, bound to a game, give a learner of a few pure functions."""

from typing import Any, NamedTuple, Protocol

import jax
import optax
from flax import struct

from envs.base import Observation
from jaxmarl_fac.experience import Clock, Decision
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.memory.base import Memory

Params = Any
Metrics = dict[str, jax.Array]


@struct.dataclass
class LearnerState:
    """All that learning changes; `()` where an algorithm has no such part.

    In JAX's 64-bit mode tables are float64, while networks and their optimisers stay in float32.
    """

    params: Params  # what acting needs, and more
    target_params: Params
    opt_state: optax.OptState


class Periods(NamedTuple):
    """When a learner learns, counted in iterations of the loop and in updates."""

    warmup: int  # iterations without learning at the start
    update_every: int  # iterations from one with updates to the next
    target_every: int = 0  # updates between copies of `params` to `target_params`; 0 leaves them to `update`


class Init(Protocol):
    """A fresh learner from a key."""

    def __call__(self, key: jax.Array) -> LearnerState: ...


class Begin(Protocol):
    """What agents remember at an episode's first observation: a latent, an option, a prior belief."""

    def __call__(self, params: Params, observation: Observation, key: jax.Array) -> Any: ...


class Act(Protocol):
    """The agents' decision with exploration."""

    def __call__(
        self, params: Params, carry: Any, observation: Observation, clock: Clock, key: jax.Array
    ) -> Decision: ...


class ActGreedily(Protocol):
    """The agents' decision without exploration, ties to the lowest index."""

    def __call__(self, params: Params, carry: Any, observation: Observation, key: jax.Array) -> Decision: ...


class Update(Protocol):
    """Learning from a batch, and scalars or arrays to log of it."""

    def __call__(
        self, state: LearnerState, batch: Any, clock: Clock, key: jax.Array
    ) -> tuple[LearnerState, Metrics]: ...


class Learner(NamedTuple):
    """An algorithm bound to a game: pure functions over one learner's arrays, and when they are called.

    Attributes:
        memory: what is kept of experience and what `update` is given of it.
        periods: when it learns.
        init: see `Init`.
        begin: see `Begin`; `no_memory` for agents that remember nothing.
        act: see `Act`.
        act_greedily: see `ActGreedily`.
        update: see `Update`.

    Example:
        >>> import jax
        >>> import baselines, envs
        >>> from jaxmarl_fac.game import GameSpec
        >>> game = envs.make("two-step")
        >>> learner = baselines.make("vdn").bind(GameSpec.of(game))
        >>> key = jax.random.key(0)
        >>> params = learner.init(key).params
        >>> observation = game.observe(game.reset(key)[0])
        >>> carry = learner.begin(params, observation, key)
        >>> learner.act_greedily(params, carry, observation, key).actions.shape
        (2,)
    """

    memory: Memory
    periods: Periods
    init: Init
    begin: Begin
    act: Act
    act_greedily: ActGreedily
    update: Update


class Algorithm(Protocol):
    """Frozen settings, shown as flags and saved by id, that `bind` turns into a learner.

    Any class with this method is an algorithm. `jaxmarl_fac.settings.Settings` as its base checks ranges.

    Example:
        This one never learns:

        >>> import jax.numpy as jnp
        >>> from jaxmarl_fac.memory import Rollout
        >>> class FirstAction:
        ...     def bind(self, game, num_envs=1):
        ...         def act_greedily(params, carry, observation, key):
        ...             return Decision(jnp.zeros(game.num_agents, jnp.int32))
        ...         def act(params, carry, observation, clock, key):
        ...             return act_greedily(params, carry, observation, key)
        ...         def update(state, batch, clock, key):
        ...             return state, {"reward": jnp.mean(batch.reward)}
        ...         memory = Rollout()
        ...         return Learner(
        ...             memory=memory,
        ...             periods=periods(memory, game, num_envs),
        ...             init=lambda key: LearnerState(params=(), target_params=(), opt_state=()),
        ...             begin=no_memory,
        ...             act=act,
        ...             act_greedily=act_greedily,
        ...             update=update,
        ...         )
        >>> from envs.matrix_games import matrix_game
        >>> learner = FirstAction().bind(GameSpec.of(matrix_game([[8, 0], [0, 2]])))
        >>> print(learner.act_greedily((), (), None, None).actions)
        [0 0]
    """

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        """The learner for a game.

        Args:
            game: what is known of it.
            num_envs: environments side by side.

        Raises:
            BadInputError: if the algorithm cannot play the game.
        """


def no_memory(params: Params, observation: Observation, key: jax.Array) -> tuple[()]:
    """`begin` for agents that remember nothing."""
    return ()


def periods(
    memory: Memory,
    game: GameSpec,
    num_envs: int,
    *,
    learning_starts: int = 0,
    update_period: int = 1,
    target_period: int = 0,
) -> Periods:
    """When a learner with this memory learns.

    Args:
        memory: what it is fed from.
        game: what it plays.
        num_envs: environments side by side.
        learning_starts: environment steps before the first update.
        update_period: batches of the memory from one that is used to the next.
        target_period: updates between copies of the parameters to the targets; 0 for none.
    """
    warmup = max(-(-learning_starts // num_envs), memory.warmup(game.time_limit))
    # A rollout is whole only after a multiple of its length.
    warmup = -(-(warmup + 1) // memory.period) * memory.period - 1
    return Periods(warmup, memory.period * update_period, target_period)
