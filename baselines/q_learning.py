"""Deep Q-learning for teams: agents, replay, optimiser and exploration around a method, which is the loss.

What makes an algorithm is its method: a value with the networks that it builds on the agents' and the loss of
a batch. The parts around it (`parts.py`) are values too, so that QMIX and Weighted QMIX differ in their
methods alone.
"""

import abc
import dataclasses
import functools
import zlib
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from baselines.parts import (
    Agents,
    BoltzmannEpisodes,
    EpsilonGreedy,
    FeedForwardAgents,
    Optimiser,
    Replay,
    TransitionReplay,
)
from envs.base import Observation
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import (
    Act,
    ActGreedily,
    Begin,
    Learner,
    LearnerState,
    Metrics,
    Params,
    periods,
)
from jaxmarl_fac.experience import Clock, Decision, Trajectory, over_batch
from jaxmarl_fac.exploration import boltzmann, epsilon_greedy
from jaxmarl_fac.game import GameSpec, refuse_numbers, refuse_reward_per_agent
from jaxmarl_fac.memory import Memory
from jaxmarl_fac.networks import AgentMemory, over_time
from jaxmarl_fac.settings import OffOrAbove, Probability, Settings, at_least
from jaxmarl_fac.targets import trajectory_returns
from jaxmarl_fac.values import greedy_actions, mask_unavailable, masked_mean


class AgentsNetwork(nn.Module):
    """The agents' networks alone; joint values are built on them.

    Args:
        agent: an `AgentNetwork` or a `RecurrentAgentNetwork`. A recurrent one takes an observation by itself
            for the first of an episode.
    """

    agent: nn.Module

    def __call__(self, observation: Observation) -> Any:
        """Touches every parameter; for initialisation."""
        return self.utilities(observation)

    def utilities(self, observation: Observation) -> jax.Array:
        """Q_i: `(n, A)`."""
        return self.agent(observation.agents_view)[0]  # type: ignore[no-any-return]

    def unroll(self, trajectory: Trajectory) -> Any:
        """What a loss needs of the agents at each of a trajectory's T + 1 observations: `(T + 1, n, A)`."""
        return self.agent.unroll(trajectory)[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(Settings, abc.ABC):
    """What makes a Q-learning algorithm: its networks and its loss."""

    #: Whether it can play games with a reward per agent.
    general_sum: ClassVar[bool] = False
    #: Lambda of its targets; above 0 they look further than one transition.
    td_lambda: ClassVar[float] = 0.0

    def check(self, game: GameSpec, learning: "QLearner") -> None:
        """Refuse a game, or other parts, that the method does not work with.

        Raises:
            BadInputError: saying why.
        """
        refuse_numbers(game)
        if not self.general_sum:
            refuse_reward_per_agent(game)

    @abc.abstractmethod
    def network(self, game: GameSpec, learning: "QLearner") -> nn.Module:
        """All networks of the learner as one module.

        It is initialised by `module(observation)`, and its method `utilities(observation)` gives the
        individual action values `(n, A)`, unmasked, by which the agents act.
        """

    @abc.abstractmethod
    def loss(self, online: Any, target: Any, batch: Trajectory, gamma: float) -> tuple[jax.Array, Metrics]:
        """The loss `()` of a batch of trajectories, and what to log of it (scalars).

        `online` and `target` are the network bound to the learning and to the target parameters.
        """

    def joint_values(self, network: Any, observation: Observation, actions: jax.Array) -> Metrics:
        """Every joint value that the method has of the joint action `(n,)`, by name, each `()`."""
        return {}

    def start(self, game: GameSpec, learning: "QLearner", params: Params) -> Params:
        """The parameters that learning starts from, given freshly initialised ones."""
        return params


class EpisodeMemory(NamedTuple):
    """What is kept of an episode where some are played by Boltzmann policies."""

    boltzmann: jax.Array  # () bool, whether this one is
    agents: Any  # the memory of recurrent agents, or ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class QLearner(Settings, abc.ABC):
    """Agents that act by individual action values, which a method learns; whatever it is fed from.

    Attributes:
        method: what makes the algorithm.
        agents: their networks.
        optimiser: how parameters are changed.
        exploration: how agents explore.
        gamma: discount factor.
        weight_std: all weights start normal with this standard deviation (QTRAN's release has 0.1); 0 leaves
            every network its own start.
    """

    method: Method
    agents: FeedForwardAgents = Agents()
    optimiser: Optimiser = Optimiser()
    exploration: EpsilonGreedy = EpsilonGreedy()
    gamma: Probability = 0.99
    weight_std: OffOrAbove = 0.0

    @property
    def recurrent(self) -> bool:
        """Whether agents have a memory."""
        return isinstance(self.agents, Agents) and self.agents.recurrent

    @property
    def keeps_utilities(self) -> bool:
        """Whether the utilities `(n, A)` by which the agents have acted are stored with each step."""
        return False

    @property
    def boltzmann_episodes(self) -> BoltzmannEpisodes | None:
        """Episodes that are played by Boltzmann policies; None if there are none."""
        return None

    @property
    @abc.abstractmethod
    def single_steps(self) -> int:
        """Single steps in one batch, at least; 0 where batches are of longer trajectories."""

    @abc.abstractmethod
    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        """See `Algorithm.bind`."""

    def network(self, game: GameSpec) -> nn.Module:
        """All networks of the learner as one module; see `Method.network`."""
        return self.method.network(game, self)

    def few_joint_actions(self, game: GameSpec) -> bool:
        """Whether enumerating all joint actions is cheaper than evaluating every sample of a batch.

        It is where all samples share one observation and are more than there are joint actions.
        """
        return game.stateless and game.num_actions**game.num_agents < self.single_steps

    def utilities(self, game: GameSpec, params: Params, observation: Observation) -> jax.Array:
        """Individual action values `(n, A)` at an episode's start, with unavailable actions masked."""
        network: Any = self.network(game).bind(params)
        return mask_unavailable(network.utilities(observation), observation.action_mask)

    def joint_values(
        self, game: GameSpec, params: Params, observation: Observation, actions: jax.Array
    ) -> Metrics:
        """Every joint value of the joint action `(n,)`, by name, each `()`."""
        return self.method.joint_values(self.network(game).bind(params), observation, actions)

    def initial_params(self, game: GameSpec, key: jax.Array) -> Params:
        """The parameters that learning starts from."""
        params = self.network(game).init(key, game.observation())
        if self.weight_std:
            params = normal_weights(params, self.weight_std, key)
        return self.method.start(game, self, params)

    def acting(self, game: GameSpec) -> tuple[Begin, Act, ActGreedily]:
        """How agents begin an episode, act with exploration, and act without."""
        module: Any = self.network(game)
        soft = self.boltzmann_episodes

        def begin(params: Params, observation: Observation, key: jax.Array) -> Any:
            agents = module.agent.fresh(game.num_agents) if self.recurrent else ()
            return EpisodeMemory(soft.coin(key), agents) if soft else agents

        def q_values_and_memory(
            params: Params, carry: Any, observation: Observation
        ) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
            """Utilities `(n, A)`, and a function from actions `(n,)` to what is kept of the episode."""
            network = module.bind(params)
            if not self.recurrent:
                return network.utilities(observation), lambda actions: carry
            utilities, hidden = network.agent(observation.agents_view, carry.agents if soft else carry)

            def remember(actions: jax.Array) -> Any:
                agents = AgentMemory(hidden, actions)
                return carry._replace(agents=agents) if soft else agents

            return utilities, remember

        def act(
            params: Params, carry: Any, observation: Observation, clock: Clock, key: jax.Array
        ) -> Decision:
            utilities, remember = q_values_and_memory(params, carry, observation)
            masked = mask_unavailable(utilities, observation.action_mask)
            if self.exploration.always_random and not soft:
                masked = jnp.zeros_like(masked)  # not read, so that XLA drops what computes them
            epsilon = self.exploration.epsilon(clock)
            actions = epsilon_greedy(key, masked, observation.action_mask, epsilon)
            if soft:
                drawn = boltzmann(key, masked, soft.temperature(clock))
                actions = jnp.where(carry.boltzmann, drawn, actions)
            return Decision(actions, remember(actions), utilities if self.keeps_utilities else ())

        def act_greedily(params: Params, carry: Any, observation: Observation, key: jax.Array) -> Decision:
            utilities, remember = q_values_and_memory(params, carry, observation)
            actions = greedy_actions(mask_unavailable(utilities, observation.action_mask))
            return Decision(actions, remember(actions))

        return begin, act, act_greedily


@dataclasses.dataclass(frozen=True, kw_only=True)
class QLearning(QLearner):
    """Off-policy learning of action values from replay, as DQN does. The defaults are QTRAN's table 3.

    Attributes:
        replay: what is kept of experience.
        boltzmann: episodes that are played by Boltzmann policies instead.
        target_period: updates between copies of the parameters to the target network; 0 for `target_rate`.
        target_rate: share of the way that targets go towards the parameters in each update (Polyak); 0 copies
            them every `target_period` updates instead.

    Raises:
        BadInputError: for recurrent agents, or a `td_lambda` above 0, that are not to learn from episodes;
            for targets that are both copied and moved, or neither.
    """

    replay: TransitionReplay = Replay()
    boltzmann: BoltzmannEpisodes = BoltzmannEpisodes()
    target_period: Annotated[int, at_least(0, "0 (for target_rate) or above")] = 10_000
    target_rate: Probability = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        episodes = self.replay.consumes == "episodes"
        if not episodes and self.method.td_lambda > 0:
            raise BadInputError("td_lambda above 0 looks further than one transition: consume episodes")
        if self.recurrent and not episodes:
            raise BadInputError("recurrent agents learn from what came before: consume episodes")
        copied, moved = self.target_period > 0, self.target_rate > 0
        if copied == moved:
            both = "both" if copied else "neither"
            raise BadInputError(
                f"targets are copied every target_period updates or move by target_rate in each, not {both}: "
                "set one of the two to 0"
            )

    @property
    def boltzmann_episodes(self) -> BoltzmannEpisodes | None:
        return None if self.boltzmann.never else self.boltzmann

    @property
    def single_steps(self) -> int:
        return self.replay.batch_size if self.replay.consumes == "transitions" else 0

    def memory(self) -> Memory:
        """What the learner is fed from."""
        return self.replay.memory()

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        self.method.check(game, self)
        memory, module = self.memory(), self.network(game)

        def init(key: jax.Array) -> LearnerState:
            _, network_key = jax.random.split(key)
            params = self.initial_params(game, network_key)
            return LearnerState(params, params, self.optimiser.init(params))

        def update(
            state: LearnerState, batch: Trajectory, clock: Clock, key: jax.Array
        ) -> tuple[LearnerState, Metrics]:
            def loss(params: Params) -> tuple[jax.Array, Metrics]:
                online, target = module.bind(params), module.bind(state.target_params)
                return self.method.loss(online, target, batch, self.gamma)

            (loss_value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
            params, opt_state = self.optimiser.step(state.params, gradients, state.opt_state, clock.progress)
            target_params = state.target_params
            if self.target_rate:
                target_params = optax.incremental_update(params, target_params, self.target_rate)
            return LearnerState(params, target_params, opt_state), {"loss": loss_value, **metrics}

        when = periods(
            memory,
            game,
            num_envs,
            learning_starts=self.replay.learning_starts,
            update_period=self.replay.update_period,
            target_period=self.target_period,
        )
        return Learner(memory, when, init, *self.acting(game), update)


def normal_weights(params: Params, std: float, key: jax.Array) -> Params:
    """Parameters with all weight matrices drawn anew from N(0, std^2); biases as they are."""

    def redrawn(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        if path[-1].key != "kernel":
            return leaf
        name = zlib.crc32(jax.tree_util.keystr(path).encode())  # each its own numbers, whatever the order
        return std * jax.random.normal(jax.random.fold_in(key, name), leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(redrawn, params)


# What methods share


@dataclasses.dataclass(frozen=True, kw_only=True)
class LambdaMethod(Method):
    """A method with TD(lambda) targets.

    Attributes:
        td_lambda: lambda of the TD(lambda) targets; above 0 it needs episodes.
    """

    td_lambda: Probability = 0.0  # type: ignore[misc]

    def targets(self, trajectory: Trajectory, next_values: jax.Array, gamma: float) -> jax.Array:
        """y, `(T,)` or `(T, n)`, from the values of what follows each step, of that shape."""
        return trajectory_returns(trajectory, next_values, gamma, self.td_lambda)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepMethod(LambdaMethod):
    """A method whose loss is a mean over steps, each with a loss of its own.

    `features` and `target_features` are what `AgentsNetwork.unroll` gives of one observation, by the learning
    and by the target parameters.
    """

    @abc.abstractmethod
    def next_value(
        self, target: Any, features: Any, target_features: Any, observation: Observation
    ) -> jax.Array:
        """What the target bootstraps from at the observation after a step: `()`, or `(n,)` for each agent."""

    @abc.abstractmethod
    def step_loss(
        self, online: Any, features: Any, observation: Observation, actions: jax.Array, y: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The loss `()` of one step whose target is `y`, of `next_value`'s shape, and what to log of it."""

    def returns(
        self, target: Any, features: Any, target_features: Any, trajectory: Trajectory, gamma: float
    ) -> jax.Array:
        """The targets y of each step of one trajectory, `(T,)` or `(T, n)`, from features `(T + 1, ...)`."""
        following = after_steps((features, target_features, trajectory.observation))
        return self.targets(trajectory, over_time(self.next_value, target, *following), gamma)

    def losses_towards(
        self, online: Any, features: Any, trajectory: Trajectory, y: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The loss of each step `(T,)` of one trajectory whose targets are `y`, and what to log of it."""
        now = before_steps((features, trajectory.observation))
        each: tuple[jax.Array, Metrics] = over_time(self.step_loss, online, *now, trajectory.actions, y)
        return each

    def losses(
        self, online: Any, target: Any, trajectory: Trajectory, gamma: float
    ) -> tuple[jax.Array, Metrics]:
        """The loss of each step `(T,)` of one trajectory, and what to log of it."""
        features = online.unroll(trajectory)
        y = self.returns(target, features, target.unroll(trajectory), trajectory, gamma)
        return self.losses_towards(online, features, trajectory, y)

    def loss(self, online: Any, target: Any, batch: Trajectory, gamma: float) -> tuple[jax.Array, Metrics]:
        """The mean loss of the batch's steps."""
        values, metrics = over_batch(
            lambda trajectory: self.losses(online, target, trajectory, gamma), batch
        )  # (B, T)
        mean = functools.partial(masked_mean, mask=batch.mask)
        return mean(values), jax.tree.map(mean, metrics)


def before_steps(tree: Any) -> Any:
    """Leaves `(T, ...)` before each of T steps, from `(T + 1, ...)` at their observations."""
    return jax.tree.map(lambda leaf: leaf[:-1], tree)


def after_steps(tree: Any) -> Any:
    """Leaves `(T, ...)` after each of T steps, from `(T + 1, ...)` at their observations."""
    return jax.tree.map(lambda leaf: leaf[1:], tree)
