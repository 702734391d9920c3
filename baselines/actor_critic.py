"""Off-policy actor-critic learning, every agent for itself: replay, optimisers and targets around a method.

What makes an algorithm is its method: a value with the networks of one agent, how that agent acts, and the
loss of one transition. All else is here. Agents share the code only, and of each other an agent knows no more
than its method reads.
"""

import abc
import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from baselines.parts import TransitionReplay
from envs.base import Observation
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Learner, LearnerState, Metrics, Params, no_memory, periods
from jaxmarl_fac.experience import Clock, Decision, Trajectory, over_batch
from jaxmarl_fac.exploration import linear_epsilon
from jaxmarl_fac.game import GameSpec, refuse_numbers
from jaxmarl_fac.memory import Memory, Newest, Together
from jaxmarl_fac.settings import Count, NotNegative, Positive, Probability, Settings, StepSize, Widths


class AgentView(NamedTuple):
    """A state of the game as one agent knows it, itself first."""

    features: jax.Array  # (O,), what the agent observes
    state: jax.Array  # (S,), the input of a centralised critic
    masks: jax.Array  # (n, A) bool, which actions every agent has


class AgentTransition(NamedTuple):
    """A transition as one agent knows it, itself first. Continuous actions lie in [-1, 1]."""

    view: AgentView
    own: jax.Array  # (), the agent's action: int32, or float32
    others: jax.Array  # (n - 1,), the other agents' actions
    reward: jax.Array  # (), the agent's
    discount: jax.Array  # (), 0 after a termination, else 1
    next_view: AgentView
    next_actions: jax.Array  # (n,), what all agents' target networks would do next without exploration


class Networks(NamedTuple):
    """One agent's networks, bound to three sets of parameters."""

    online: Any  # the gradient of the loss is taken with respect to these
    frozen: Any  # the same numbers, without gradient
    target: Any  # follow slowly, without gradient


# The parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorCriticAdam(Settings):
    """Adam with one step size for critics and one for all other networks.

    Attributes:
        actor_learning_rate: Adam's step size for all networks but critics.
        critic_learning_rate: Adam's step size for critics.
        learning_rate_schedule: "constant", or "linear" down to 0 at the end of training.
    """

    actor_learning_rate: Positive = 1e-2
    critic_learning_rate: Positive = 1e-2
    learning_rate_schedule: Literal["constant", "linear"] = "constant"

    def init(self, params: Params, critics: tuple[str, ...]) -> optax.OptState:
        """The optimiser's state at the start, for one agent whose submodules `critics` are critics."""
        return self._direction(critics).init(params)

    def step(
        self,
        params: Params,
        gradients: Params,
        opt_state: optax.OptState,
        progress: jax.Array,
        critics: tuple[str, ...],
    ) -> tuple[Params, optax.OptState]:
        """Parameters after one step; `progress` in [0, 1] drives the learning rate."""
        directions, opt_state = self._direction(critics).update(gradients, opt_state, params)
        left = 1 - progress if self.learning_rate_schedule == "linear" else 1.0
        return optax.apply_updates(params, jax.tree.map(lambda step: left * step, directions)), opt_state

    def _direction(self, critics: tuple[str, ...]) -> optax.GradientTransformation:
        def kinds(params: Params) -> Params:
            names = {name: "critic" if name in critics else "actor" for name in params["params"]}
            return {"params": names}

        return optax.multi_transform(
            {"actor": optax.adam(self.actor_learning_rate), "critic": optax.adam(self.critic_learning_rate)},
            kinds,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActionNoise(Settings):
    """Exploration by normal noise on a deterministic action; the noise falls linearly.

    Attributes:
        noise_start: standard deviation of the noise at the first step, where actions lie in [-1, 1].
            ROMMEO's release has an Ornstein-Uhlenbeck process of .57.
        noise_end: after `noise_steps` environment steps, falling linearly.
        noise_steps: see `noise_end`.
    """

    noise_start: NotNegative = 0.57
    noise_end: NotNegative = 0.05
    noise_steps: Count = 1000

    def std(self, clock: Clock) -> jax.Array:
        """The noise's standard deviation `()`."""
        return linear_epsilon(clock.env_steps, self.noise_start, self.noise_end, self.noise_steps)

    def added_to(self, action: jax.Array, clock: Clock, key: jax.Array) -> jax.Array:
        """The action `()` with noise, clipped to [-1, 1]."""
        return jnp.clip(action + self.std(clock) * jax.random.normal(key), -1, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annealing(Settings):
    """An entropy weight that is constant at first and then falls exponentially.

    `alpha(p) = alpha_end + (alpha_start - alpha_end) e^{-alpha_decay max(p - alpha_hold, 0)}`, where p in
    [0, 1] is the fraction of training done. ROMMEO's release has `.1 + 500 e^{-.1 max(t - 10, 0)}`, which
    is the default if t counts the paper's 200 iterations of 25 steps each. Its script counts single steps
    (`alpha_hold` .002 and `alpha_decay` 500 in 5,000 steps).

    Attributes:
        alpha_start: at first.
        alpha_end: in the long run.
        alpha_hold: fraction of training before it falls.
        alpha_decay: how often it falls to 1/e in a whole training.
    """

    alpha_start: Positive = 500.1
    alpha_end: Positive = 0.1
    alpha_hold: Probability = 0.05
    alpha_decay: NotNegative = 20.0

    def alpha(self, clock: Clock) -> jax.Array:
        """The entropy weight `()`."""
        falling = jnp.exp(-self.alpha_decay * jnp.maximum(clock.progress - self.alpha_hold, 0))
        return self.alpha_end + (self.alpha_start - self.alpha_end) * falling


# The method and the learner


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorCriticMethod(Settings, abc.ABC):
    """What makes an actor-critic algorithm, for one agent: its networks, how it acts, and its loss."""

    #: Plays games with continuous actions, or games with few discrete actions.
    continuous: ClassVar[bool]
    #: Share one PRNG key across the batch, so that noise is drawn once.
    common_noise: ClassVar[bool] = False
    #: The submodules that learn at `critic_learning_rate`.
    critics: ClassVar[tuple[str, ...]] = ("critic",)
    #: Every how many updates all networks but critics learn, and targets follow.
    actor_period: ClassVar[int] = 1

    @property
    def two_agents(self) -> bool:
        """Whether it needs games of two agents."""
        return False

    @property
    def models_others(self) -> bool:
        """Whether it fits a model of the others to the newest transitions; see `model_loss`."""
        return False

    def check(self, game: GameSpec) -> None:
        """Refuse a game that the method cannot play.

        Raises:
            BadInputError: saying why.
        """
        if not self.continuous:
            refuse_numbers(game)
        elif game.num_actions:
            raise BadInputError(
                f"the algorithm needs continuous actions, but {game.name} has {game.num_actions} discrete "
                "ones: take an algorithm for discrete actions"
            )
        if self.two_agents and game.num_agents != 2:
            raise BadInputError(
                f"the algorithm models one other agent, but {game.name} has {game.agents}: take a game of two"
            )

    @abc.abstractmethod
    def network(self, game: GameSpec, hidden: tuple[int, ...]) -> nn.Module:
        """All networks of one agent as one module, initialised by `module(view, own, others)`."""

    @abc.abstractmethod
    def explore(self, network: Any, view: AgentView, clock: Clock, key: jax.Array) -> jax.Array:
        """The agent's action `()` with exploration."""

    @abc.abstractmethod
    def exploit(self, network: Any, view: AgentView) -> jax.Array:
        """The agent's action `()` without exploration."""

    @abc.abstractmethod
    def loss(
        self, networks: Networks, transition: AgentTransition, gamma: float, clock: Clock, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The loss `()` of one transition, and what to log of it (scalars).

        It is the sum of all networks' losses: each reaches only the networks that it is meant to train, by
        taking the others from `networks.frozen`.
        """

    def model_loss(self, network: Any, view: AgentView, others: jax.Array) -> jax.Array:
        """The loss `()` of the model of the others, given the actions that they took, `(n - 1,)`."""
        return jnp.zeros(())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorCritic(Settings):
    """Off-policy actor-critic learning in which every agent learns for itself.

    Every agent has networks, targets and an optimiser of its own, which start differently: all leaves of the
    learner's state have a leading axis `(n,)`.

    Attributes:
        method: what makes the algorithm.
        replay: what is kept of experience.
        optimiser: how parameters are changed.
        target_rate: share of the way that targets go towards the parameters in each update (Polyak).
        gamma: discount factor.
        hidden: widths of the hidden layers of every network.
    """

    method: ActorCriticMethod
    replay: TransitionReplay = TransitionReplay(batch_size=512, replay_size=100_000, learning_starts=10)
    optimiser: ActorCriticAdam = ActorCriticAdam()
    target_rate: StepSize = 0.01
    gamma: Probability = 0.99
    hidden: Widths = (100, 100)

    def network(self, game: GameSpec) -> nn.Module:
        """All networks of one agent as one module; see `ActorCriticMethod.network`."""
        return self.method.network(game, self.hidden)

    def memory(self) -> Memory:
        """Batches of transitions; of a method that models others `{"replay", "newest"}`."""
        replay = self.replay.memory()
        if not self.method.models_others:
            return replay
        return Together(replay=replay, newest=Newest(self.replay.batch_size))

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        """See `Algorithm.bind`."""
        method, optimiser, n = self.method, self.optimiser, game.num_agents
        method.check(game)
        memory, module = self.memory(), self.network(game)

        def to_game(actions: jax.Array) -> jax.Array:
            """Actions `(n,)` of the networks as the game takes them."""
            if not method.continuous:
                return actions
            low, high = game.bounds()
            return low + (actions + 1) / 2 * (high - low)

        def from_game(actions: jax.Array) -> jax.Array:
            """Actions `(n,)` of the game as the networks take them; inverse of `to_game`."""
            if not method.continuous:
                return actions
            low, high = game.bounds()
            return 2 * (actions - low) / (high - low) - 1

        def exploit_all(params: Params, observation: Observation) -> jax.Array:
            """Every agent's action `(n,)` without exploration, as the networks give it."""

            def exploit(params: Params, view: AgentView) -> jax.Array:
                return method.exploit(module.bind(params), view)

            return jax.vmap(exploit)(params, agent_views(observation))

        def init(key: jax.Array) -> LearnerState:
            _, network_key = jax.random.split(key)
            dtype = jnp.float32 if method.continuous else jnp.int32
            own, others = jnp.zeros((), dtype), jnp.zeros((n - 1,), dtype)
            params = jax.vmap(lambda key, view: module.init(key, view, own, others))(
                jax.random.split(network_key, n), agent_views(game.observation())
            )
            opt_state = jax.vmap(lambda params: optimiser.init(params, method.critics))(params)
            return LearnerState(params, params, opt_state)

        def act(
            params: Params, carry: Any, observation: Observation, clock: Clock, key: jax.Array
        ) -> Decision:
            def explore(params: Params, view: AgentView, key: jax.Array) -> jax.Array:
                return method.explore(module.bind(params), view, clock, key)

            keys = jax.random.split(key, n)
            return Decision(to_game(jax.vmap(explore)(params, agent_views(observation), keys)))

        def act_greedily(params: Params, carry: Any, observation: Observation, key: jax.Array) -> Decision:
            return Decision(to_game(exploit_all(params, observation)))

        def update(
            state: LearnerState, batch: Any, clock: Clock, key: jax.Array
        ) -> tuple[LearnerState, Metrics]:
            """One gradient step of every agent on its mean loss of the batch, and one of the targets."""
            replayed = batch["replay"] if method.models_others else batch

            def transition_of(agent: jax.Array, trajectory: Trajectory) -> AgentTransition:
                """The only step of a trajectory as the agent `()` knows it."""
                ordering = jnp.asarray(agent_orderings(n))[agent]
                actions = from_game(trajectory.actions[0])[ordering]
                observation, following = (
                    jax.tree.map(lambda leaf, t=t: leaf[t], trajectory.observation) for t in (0, 1)
                )
                return AgentTransition(
                    view=agent_view(agent, observation),
                    own=actions[0],
                    others=actions[1:],
                    reward=jnp.broadcast_to(trajectory.reward[0], (n,))[agent],
                    discount=trajectory.discount[0],
                    next_view=agent_view(agent, following),
                    next_actions=exploit_all(state.target_params, following)[ordering],
                )

            def update_agent(
                agent: jax.Array,
                params: Params,
                target_params: Params,
                opt_state: optax.OptState,
                key: jax.Array,
            ) -> tuple[LearnerState, Metrics]:
                def batch_loss(params: Params) -> tuple[jax.Array, Metrics]:
                    frozen = jax.lax.stop_gradient(params)
                    networks = Networks(*(module.bind(each) for each in (params, frozen, target_params)))

                    def sample_loss(
                        trajectory: Trajectory, key: jax.Array = key
                    ) -> tuple[jax.Array, Metrics]:
                        transition = transition_of(agent, trajectory)
                        return method.loss(networks, transition, self.gamma, clock, key)

                    samples = replayed.actions.shape[0]
                    keys = () if method.common_noise else (jax.random.split(key, samples),)
                    losses, metrics = over_batch(sample_loss, replayed, *keys)
                    loss, metrics = jnp.mean(losses), jax.tree.map(jnp.mean, metrics)
                    if method.models_others:

                        def model_loss(trajectory: Trajectory) -> jax.Array:
                            newest = transition_of(agent, trajectory)
                            return method.model_loss(networks.online, newest.view, newest.others)

                        metrics["model_loss"] = jnp.mean(over_batch(model_loss, batch["newest"]))
                        loss += metrics["model_loss"]
                    return loss, metrics

                gradients, metrics = jax.grad(batch_loss, has_aux=True)(params)
                before = LearnerState(params, target_params, opt_state)
                params, opt_state = optimiser.step(
                    params, gradients, opt_state, clock.progress, method.critics
                )
                target_params = optax.incremental_update(params, target_params, self.target_rate)
                after = LearnerState(params, target_params, opt_state)
                if method.actor_period > 1:
                    due = (clock.updates + 1) % method.actor_period == 0
                    after = jax.tree.map(
                        lambda *leaves: jnp.where(due, *leaves),
                        after,
                        critics_moved(before, after, method.critics),
                    )
                return after, metrics

            updated, metrics = jax.vmap(update_agent)(
                jnp.arange(n), state.params, state.target_params, state.opt_state, jax.random.split(key, n)
            )
            return updated, jax.tree.map(jnp.mean, metrics)

        when = periods(memory, game, num_envs, learning_starts=self.replay.learning_starts)
        return Learner(memory, when, init, no_memory, act, act_greedily, update)


def critics_moved(before: LearnerState, after: LearnerState, critics: tuple[str, ...]) -> LearnerState:
    """One agent's state in which only the submodules `critics`, and their optimiser, are those of `after`."""
    kept, moved = before.params["params"], after.params["params"]
    params = {name: (moved if name in critics else kept)[name] for name in kept}
    states = before.opt_state.inner_states | {"critic": after.opt_state.inner_states["critic"]}
    return LearnerState(
        {"params": params}, before.target_params, before.opt_state._replace(inner_states=states)
    )


def agent_orderings(agents: int) -> np.ndarray:
    """Index matrix `(n, n)` whose row i is agent i followed by the others in order."""
    return np.array([[i, *(j for j in range(agents) if j != i)] for i in range(agents)])


def agent_views(observation: Observation) -> AgentView:
    """One observation as every agent knows it: leaves with a leading axis `(n,)`."""
    agents = observation.agents_view.shape[0]
    return AgentView(
        features=observation.agents_view,
        state=jnp.broadcast_to(observation.global_state, (agents, *observation.global_state.shape)),
        masks=observation.action_mask[agent_orderings(agents)],
    )


def agent_view(agent: jax.Array, observation: Observation) -> AgentView:
    """One observation as the agent `()` knows it."""
    return jax.tree.map(lambda leaf: leaf[agent], agent_views(observation))  # type: ignore[no-any-return]
