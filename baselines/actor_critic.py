"""Off-policy actor-critic learning in which every agent learns for itself. What differs is the losses."""

import abc
import dataclasses
import functools
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Algorithm, LearnerState, Metrics, Params, Transition, check_replay
from jaxmarl_fac.exploration import linear_epsilon
from jaxmarl_fac.settings import Count, NotNegative, Positive, Probability, StepSize, Widths


class Seen(NamedTuple):
    """A state of the game as one agent knows it, itself first."""

    view: jax.Array  # (O,), what the agent observes
    state: jax.Array  # (S,), what a centralised critic sees
    masks: jax.Array  # (n, A), which actions every agent has


class Step(NamedTuple):
    """A transition as one agent knows it, itself first. Continuous actions lie in [-1, 1]."""

    seen: Seen
    own: jax.Array  # (), the agent's action: int32, or float32
    others: jax.Array  # (n - 1,), the other agents' actions
    reward: jax.Array  # (), the agent's
    discount: jax.Array  # (), 0 after a termination, else 1
    next_seen: Seen
    next_actions: jax.Array  # (n,), what all agents' target networks would do next without exploration


class Bound(NamedTuple):
    """One agent's networks, bound to three sets of parameters."""

    online: Any  # what the gradient of the loss is taken for
    frozen: Any  # the same numbers, without gradient
    target: Any  # those that follow slowly, without gradient


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorCritic(Algorithm):
    """Every agent has networks, a replay view and an optimiser of its own; only the code is shared.

    A subclass gives the networks of one agent, how that agent acts, and the loss of one transition. One
    loss is the sum of all networks' losses: each reaches only what it is meant to train, by taking the
    rest from `frozen`. Parameters, targets and optimisers have a leading axis `(n,)`.

    Attributes:
        actor_learning_rate: Adam's step size for all networks but critics.
        critic_learning_rate: Adam's step size for the networks named in `critics`.
        learning_rate_schedule: "constant", or "linear" down to 0 at the end of training.
        target_rate: share of the way that targets go towards the parameters in each update (Polyak).
        batch_size: transitions in one update.
        replay_size: transitions kept.
        learning_starts: environment steps before the first update.
        gamma: discount factor.
        hidden: widths of the hidden layers of every network.
    """

    actor_learning_rate: Positive = 1e-2
    critic_learning_rate: Positive = 1e-2
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    target_rate: StepSize = 0.01
    batch_size: Count = 512
    replay_size: Count = 100_000
    learning_starts: Count = 10  # type: ignore[misc]
    gamma: Probability = 0.99
    hidden: Widths = (100, 100)

    consumes: ClassVar[Literal["transitions", "episodes", "latest"]] = "transitions"
    general_sum: ClassVar[bool] = True
    #: Plays games of numbers, or games of few actions.
    continuous: ClassVar[bool]
    #: All samples of a batch are given the same key: what depends on nothing else is computed once.
    common_noise: ClassVar[bool] = False
    #: Fits a model of the others to the newest `batch_size` transitions, besides those drawn.
    models_others: ClassVar[bool] = False
    #: Can tell only one other agent's actions from its own.
    two_agents: ClassVar[bool] = False
    #: The submodules that learn at `critic_learning_rate`.
    critics: ClassVar[tuple[str, ...]] = ("critic",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_replay(self.replay_size, self.batch_size)

    @property
    def newest_transitions(self) -> int:
        """How many of the newest transitions replay adds to a batch."""
        return self.batch_size if self.models_others else 0

    def check(self, env: TeamEnvironment) -> None:
        """Refuse an environment that the algorithm cannot play.

        Raises:
            BadInputError: saying why.
        """
        name, game = type(self).__name__, type(env).__name__
        if self.continuous and env.num_actions:
            raise BadInputError(
                f"{name} chooses numbers, and {game} has {env.num_actions} discrete actions: take an "
                "algorithm for discrete actions"
            )
        if not self.continuous:
            super().check(env)
        if self.two_agents and env.num_agents != 2:
            raise BadInputError(
                f"{name} models one other agent, and {game} has {env.num_agents} agents: take a game of two"
            )

    # What makes an algorithm, for one agent.

    @abc.abstractmethod
    def network(self, env: TeamEnvironment) -> nn.Module:
        """All networks of one agent as one module, initialised by `module(seen, own, others)`."""

    @abc.abstractmethod
    def explore(self, network: Any, seen: Seen, epsilon: jax.Array, key: jax.Array) -> jax.Array:
        """The agent's action `()` with exploration."""

    @abc.abstractmethod
    def exploit(self, network: Any, seen: Seen) -> jax.Array:
        """The agent's action `()` without exploration."""

    @abc.abstractmethod
    def loss(
        self, networks: Bound, step: Step, progress: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The loss `()` of one transition, and what to log of it (scalars)."""

    def model_loss(self, network: Any, seen: Seen, others: jax.Array) -> jax.Array:
        """The loss `()` of the model of the others beside what they did, `(n - 1,)`; see `models_others`."""
        return jnp.zeros(())

    # What the loop asks for, for all agents.

    def init(self, env: TeamEnvironment, key: jax.Array) -> LearnerState:
        """A fresh learner."""
        reset_key, network_key = jax.random.split(key)
        seen = seen_by_all(env.observe(env.reset(reset_key)[0]))
        dtype = jnp.float32 if self.continuous else jnp.int32
        own, others = jnp.zeros((), dtype), jnp.zeros((env.num_agents - 1,), dtype)
        keys = jax.random.split(network_key, env.num_agents)
        params = jax.vmap(lambda key, seen: self.network(env).init(key, seen, own, others))(keys, seen)
        return LearnerState(params, params, jax.vmap(self._optimiser().init)(params))

    def act(
        self,
        env: TeamEnvironment,
        params: Params,
        carry: Any,
        observation: Observation,
        epsilon: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, Any]:
        """Every agent's action `(n,)` with exploration."""
        network = self.network(env)

        def act_alone(params: Params, seen: Seen, key: jax.Array) -> jax.Array:
            return self.explore(network.bind(params), seen, epsilon, key)

        keys = jax.random.split(key, env.num_agents)
        return self._played(env, jax.vmap(act_alone)(params, seen_by_all(observation), keys)), carry

    def act_greedily(
        self, env: TeamEnvironment, params: Params, carry: Any, observation: Observation
    ) -> tuple[jax.Array, Any]:
        """Every agent's action `(n,)` without exploration, ties to the lowest index."""
        return self._played(env, self._exploit_all(env, params, observation)), carry

    def update(
        self,
        env: TeamEnvironment,
        learner: LearnerState,
        batch: Transition,
        progress: jax.Array,
        key: jax.Array,
    ) -> tuple[LearnerState, Metrics]:
        """One gradient step of every agent on its mean loss of the batch, and one of the targets."""
        network, optimiser = self.network(env), self._optimiser()
        drawn = batch.actions.shape[0] - self.newest_transitions
        steps, axes = self._steps(env, learner.target_params, _rows(env, batch, slice(drawn)))
        newest = steps
        if self.models_others:
            newest, _ = self._steps(env, learner.target_params, _rows(env, batch, slice(drawn, None)))

        def update_agent(
            params: Params,
            target_params: Params,
            opt_state: optax.OptState,
            steps: Step,
            newest: Step,
            key: jax.Array,
        ) -> tuple[LearnerState, Metrics]:
            def batch_loss(params: Params) -> tuple[jax.Array, Metrics]:
                frozen = jax.lax.stop_gradient(params)
                networks = Bound(*(network.bind(each) for each in (params, frozen, target_params)))

                def sample_loss(step: Step, key: jax.Array) -> tuple[jax.Array, Metrics]:
                    return self.loss(networks, step, progress, key)

                noise = (key, None) if self.common_noise else (jax.random.split(key, drawn), 0)
                losses, metrics = jax.vmap(sample_loss, (axes, noise[1]))(steps, noise[0])
                loss, metrics = jnp.mean(losses), jax.tree.map(jnp.mean, metrics)
                if self.models_others:
                    fit = functools.partial(self.model_loss, networks.online)
                    metrics["model_loss"] = jnp.mean(
                        jax.vmap(fit, (axes.seen, 0))(newest.seen, newest.others)
                    )
                    loss += metrics["model_loss"]
                return loss, metrics

            gradients, metrics = jax.grad(batch_loss, has_aux=True)(params)
            directions, opt_state = optimiser.update(gradients, opt_state, params)
            left = 1 - progress if self.learning_rate_schedule == "linear" else 1.0
            params = optax.apply_updates(params, jax.tree.map(lambda step: left * step, directions))
            target_params = optax.incremental_update(params, target_params, self.target_rate)
            return LearnerState(params, target_params, opt_state), metrics

        keys = jax.random.split(key, env.num_agents)
        updated, metrics = jax.vmap(update_agent)(
            learner.params, learner.target_params, learner.opt_state, steps, newest, keys
        )
        return updated, jax.tree.map(jnp.mean, metrics)

    def _steps(self, env: TeamEnvironment, target_params: Params, batch: Transition) -> tuple[Step, Step]:
        """The batch as every agent knows it, `(n, B, ...)` or `(n, ...)`, and which leaves have a B."""
        order, shared = turns(env.num_agents), env.stateless

        def look(observation: Observation) -> Seen:
            return seen_by_all(observation) if shared else jax.vmap(seen_by_all, out_axes=1)(observation)

        def plan(observation: Observation) -> jax.Array:
            actions = self._exploit_all(env, target_params, observation)
            return actions[order]  # (n, n)

        reward = batch.reward if batch.reward.ndim == 2 else batch.reward[:, None]
        actions = self._learned(env, batch.actions)  # (B, n)
        steps = Step(
            seen=look(batch.observation),
            own=actions.T,
            others=jnp.moveaxis(actions[:, order[:, 1:]], 0, 1),
            reward=jnp.broadcast_to(reward, actions.shape).T,
            discount=jnp.broadcast_to(batch.discount[:, None], actions.shape).T,
            next_seen=look(batch.next_observation),
            next_actions=(plan if shared else jax.vmap(plan, out_axes=1))(batch.next_observation),
        )
        shared_axis = None if shared else 0
        return steps, Step(shared_axis, 0, 0, 0, 0, shared_axis, shared_axis)  # type: ignore[arg-type]

    def _exploit_all(self, env: TeamEnvironment, params: Params, observation: Observation) -> jax.Array:
        network = self.network(env)
        return jax.vmap(lambda params, seen: self.exploit(network.bind(params), seen))(
            params, seen_by_all(observation)
        )

    def _played(self, env: TeamEnvironment, actions: jax.Array) -> jax.Array:
        """Actions `(..., n)` of the networks as the game takes them."""
        if not self.continuous:
            return actions
        low, high = bounds(env)
        return low + (actions + 1) / 2 * (high - low)

    def _learned(self, env: TeamEnvironment, actions: jax.Array) -> jax.Array:
        """Actions `(..., n)` of the game as the networks take them; inverse of `_played`."""
        if not self.continuous:
            return actions
        low, high = bounds(env)
        return 2 * (actions - low) / (high - low) - 1

    def _optimiser(self) -> optax.GradientTransformation:
        def kinds(params: Params) -> Params:
            names = {name: "critic" if name in self.critics else "actor" for name in params["params"]}
            return {"params": names}

        return optax.multi_transform(
            {"actor": optax.adam(self.actor_learning_rate), "critic": optax.adam(self.critic_learning_rate)},
            kinds,
        )


def _rows(env: TeamEnvironment, batch: Transition, rows: slice) -> Transition:
    """Some of a batch's transitions."""

    def cut(tree: Any, shared: bool = False) -> Any:
        return tree if shared else jax.tree.map(lambda leaf: leaf[rows], tree)

    return Transition(
        cut(batch.observation, env.stateless),
        cut(batch.actions),
        cut(batch.reward),
        cut(batch.discount),
        cut(batch.next_observation, env.stateless),
    )


def turns(agents: int) -> np.ndarray:
    """The agents as each of them counts, itself first and the others in order: `(n, n)`."""
    return np.array([[i, *(j for j in range(agents) if j != i)] for i in range(agents)])


def seen_by_all(observation: Observation) -> Seen:
    """One observation as every agent knows it: leaves with a leading axis `(n,)`."""
    agents = observation.agents_view.shape[0]
    return Seen(
        view=observation.agents_view,
        state=jnp.broadcast_to(observation.global_state, (agents, *observation.global_state.shape)),
        masks=observation.action_mask[turns(agents)],
    )


def bounds(env: TeamEnvironment) -> tuple[jax.Array, jax.Array]:
    """The lowest and the highest actions `(n,)` of a game of numbers."""
    spec: Any = env.action_spec
    shape = (env.num_agents,)
    return jnp.broadcast_to(spec.minimum, shape), jnp.broadcast_to(spec.maximum, shape)


# Settings that some of the algorithms share.


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisyActorCritic(ActorCritic):
    """Explores by normal noise on a deterministic action.

    Attributes:
        noise_start: standard deviation of the noise at the first step, where actions lie in [-1, 1].
            ROMMEO's release has an Ornstein-Uhlenbeck process of .57.
        noise_end: after `noise_steps` environment steps, falling linearly.
        noise_steps: see `noise_end`.
    """

    noise_start: NotNegative = 0.57
    noise_end: NotNegative = 0.05
    noise_steps: Count = 1000

    def epsilon(self, env_steps: jax.Array) -> jax.Array:
        """The noise's standard deviation after so many environment steps."""
        return linear_epsilon(env_steps, self.noise_start, self.noise_end, self.noise_steps)

    def explore(self, network: Any, seen: Seen, epsilon: jax.Array, key: jax.Array) -> jax.Array:
        """The agent's action `()` and noise, cut off at the bounds."""
        return jnp.clip(self.exploit(network, seen) + epsilon * jax.random.normal(key), -1, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annealed(ActorCritic):
    """Has an entropy weight that falls exponentially, after a while at its start.

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

    def alpha(self, progress: jax.Array) -> jax.Array:
        """The entropy weight `()` when so much of training is done."""
        falling = jnp.exp(-self.alpha_decay * jnp.maximum(progress - self.alpha_hold, 0))
        return self.alpha_end + (self.alpha_start - self.alpha_end) * falling
