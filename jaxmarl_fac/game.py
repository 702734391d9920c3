"""What an algorithm may know of a game before it plays."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError


@dataclasses.dataclass(frozen=True)
class GameSpec:
    """Static facts about a game, the same for every game of a batch; compared and hashed by them.

    Attributes:
        name: of the environment's class, for messages.
        num_agents: n.
        num_actions: A, actions of the agent that has most; 0 where actions are numbers.
        action_counts: `(A_1, ..., A_n)`; empty where actions are numbers.
        view_size: O, features of an agent's view.
        state_size: S, features of the global state.
        public_size: P, features of what all agents see; 0 in games without public observations.
        num_private: how many different things an agent may see in private; 0 in games without public
            observations.
        time_limit: steps of the longest episode.
        stateless: every observation of the game is the same.
        fully_observable: every agent sees the whole state.
        one_hot_views: an agent's view is the one-hot number of its observation, so that tables can hold it.
        reward_per_agent: rewards are `(n,)` instead of `()`.
        num_options: m, options of each agent; 0 in a game without options.
    """

    name: str
    num_agents: int
    num_actions: int
    action_counts: tuple[int, ...]
    view_size: int
    state_size: int
    public_size: int
    num_private: int
    time_limit: int
    stateless: bool
    fully_observable: bool
    one_hot_views: bool
    reward_per_agent: bool
    num_options: int
    #: Shapes and dtypes of an observation.
    _observation: Observation = dataclasses.field(compare=False, repr=False)
    #: Parameters of the game such as payoffs, which differ within a batch; read by the methods below only.
    _env: TeamEnvironment = dataclasses.field(compare=False, repr=False)

    @classmethod
    def of(cls, env: TeamEnvironment) -> "GameSpec":
        """The facts of a game without a leading axis."""
        shapes = env.observation_shapes
        counts = getattr(env, "action_counts", (env.num_actions,) * env.num_agents)
        return cls(
            name=type(env).__name__,
            num_agents=env.num_agents,
            num_actions=env.num_actions,
            action_counts=tuple(counts) if env.num_actions else (),
            view_size=shapes.agents_view.shape[-1],
            state_size=shapes.global_state.shape[-1],
            public_size=0 if shapes.public_view is None else shapes.public_view.shape[-1],
            num_private=0 if shapes.private is None else env.num_private,
            time_limit=env.time_limit,
            stateless=env.stateless,
            fully_observable=env.fully_observable,
            one_hot_views=env.one_hot_views,
            reward_per_agent=bool(env.reward_spec.shape),
            num_options=env.num_options,
            _observation=shapes,
            _env=env,
        )

    def with_parameters(self, env: TeamEnvironment) -> "GameSpec":
        """The same facts about another game of the batch."""
        return dataclasses.replace(self, _env=env)

    @property
    def agents(self) -> str:
        """How many agents there are, in words for messages."""
        return "1 agent" if self.num_agents == 1 else f"{self.num_agents} agents"

    def observation(self) -> Observation:
        """An observation of zeros with every action available, to initialise networks with."""
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self._observation)
        return zeros._replace(action_mask=jnp.ones_like(zeros.action_mask))  # type: ignore[no-any-return]

    def bounds(self) -> tuple[jax.Array, jax.Array]:
        """The lowest and the highest actions `(n,)` of a game in which actions are numbers."""
        spec: Any = self._env.action_spec
        shape = (self.num_agents,)
        return jnp.broadcast_to(spec.minimum, shape), jnp.broadcast_to(spec.maximum, shape)

    def option_priors(self, observation: Observation) -> jax.Array:
        """See `TeamEnvironment.option_priors`."""
        return self._env.option_priors(observation)

    def return_lower_bound(self, gamma: float | jax.Array) -> jax.Array | None:
        """See `TeamEnvironment.return_lower_bound`."""
        return self._env.return_lower_bound(gamma)

    def hidden_model(self) -> Any:
        """See `TeamEnvironment.hidden_model`."""
        return self._env.hidden_model()

    def best_reward_of_worst_action(self, agent: int) -> jax.Array:
        """See `TeamEnvironment.best_reward_of_worst_action`."""
        return self._env.best_reward_of_worst_action(agent)


def refuse_numbers(game: GameSpec) -> None:
    """Refuse a game whose actions are numbers.

    Raises:
        BadInputError: if they are.
    """
    if game.num_actions == 0:
        raise BadInputError(
            f"the algorithm needs discrete actions, but {game.name} has continuous ones: take an algorithm "
            "for continuous actions"
        )


def refuse_reward_per_agent(game: GameSpec) -> None:
    """Refuse a game with a reward per agent.

    Raises:
        BadInputError: if it has one.
    """
    if game.reward_per_agent:
        raise BadInputError(
            f"the algorithm learns from a reward of the whole team, and {game.name} has one per agent: take "
            "an algorithm for general-sum games"
        )
