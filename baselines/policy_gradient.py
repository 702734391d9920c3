"""On-policy policy gradients for teams: agents, rollouts and an optimiser around a method and an objective.

What makes an algorithm is its method: a critic, and the advantages that it gives the agents' actions. The
objective says how a policy follows its advantages: by one step along the score function, or by several steps
that stay near the policy that has acted.
"""

import abc
import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.parts import Agents, FeedForwardAgents, Optimiser
from baselines.policies import Play, log_policies, play
from baselines.q_learning import AgentsNetwork, after_steps, before_steps
from envs.base import Observation
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Learner, LearnerState, Metrics, Params, periods
from jaxmarl_fac.experience import Clock, Trajectory, over_batch, take
from jaxmarl_fac.exploration import sample_actions
from jaxmarl_fac.game import GameSpec, refuse_numbers, refuse_reward_per_agent
from jaxmarl_fac.memory import Memory, Rollout
from jaxmarl_fac.networks import MLP, over_time
from jaxmarl_fac.policy_gradients import annealed, entropy, score_loss
from jaxmarl_fac.settings import Count, NotNegative, Positive, Probability, Settings, Widths
from jaxmarl_fac.targets import trajectory_returns
from jaxmarl_fac.values import chosen, masked_mean

# Networks


class CriticInputs(NamedTuple):
    """All that a critic may look at in one step; each takes what it needs."""

    outputs: jax.Array  # (n, A + k) of the agents' networks
    observation: Observation
    actions: jax.Array  # (n,), of all agents


class PolicyNetwork(AgentsNetwork):
    """The agents' networks, whose first A outputs are logits, and a critic.

    Args:
        agent: see `AgentsNetwork`.
        critic: `CriticInputs` to values.
    """

    critic: nn.Module

    def __call__(self, observation: Observation) -> Any:
        """Touches every parameter; for initialisation."""
        outputs = self.utilities(observation)
        return self.evaluate(outputs, observation, jnp.zeros(outputs.shape[0], jnp.int32))

    def evaluate(self, outputs: jax.Array, observation: Observation, actions: jax.Array) -> Any:
        """What the critic says of one step."""
        return self.critic(CriticInputs(outputs, observation, actions))


class NoCritic(nn.Module):
    """Values of 0, `(n,)`."""

    def __call__(self, inputs: CriticInputs) -> jax.Array:
        return jnp.zeros(inputs.outputs.shape[0])


class OwnValues(nn.Module):
    """The agents' own values V_i `(n,)`: the last outputs of their networks."""

    def __call__(self, inputs: CriticInputs) -> jax.Array:
        return inputs.outputs[:, -1]


class StateValue(nn.Module):
    """V(s), `()`.

    Args:
        widths: of the hidden layers.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: CriticInputs) -> jax.Array:
        return MLP(self.widths, 1)(inputs.observation.global_state)[0]


class JointActionValue(nn.Module):
    """Q(s, u_1, ..., u_n), `()`.

    Args:
        num_actions: A.
        widths: of the hidden layers.
    """

    num_actions: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: CriticInputs) -> jax.Array:
        state = inputs.observation.global_state
        actions = jax.nn.one_hot(inputs.actions, self.num_actions, dtype=state.dtype)
        return MLP(self.widths, 1)(jnp.concatenate([state, actions.ravel()]))[0]


# How a policy follows its advantages


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective(Settings, abc.ABC):
    """The loss of the agents' actions, given their advantages, and how often a rollout is learned from."""

    #: Passes through a rollout.
    epochs: ClassVar[int] = 1
    #: Parts that each pass is divided into.
    minibatches: ClassVar[int] = 1

    @property
    def first_penalty(self) -> float | None:
        """The weight of the divergence from the policy that has acted, at first; None for no such term."""
        return None

    @abc.abstractmethod
    def loss(self, log_probs: jax.Array, old_log_probs: jax.Array, advantages: jax.Array) -> jax.Array:
        """The loss `(n,)` of one step.

        Args:
            log_probs: `(n,)`, of the actions that were played.
            old_log_probs: `(n,)`, by the policy that played them.
            advantages: `(n,)`.
        """

    def next_penalty(self, penalty: jax.Array, divergence: jax.Array) -> jax.Array:
        """The weight `()` of the divergence after a rollout that moved the policy by `divergence`."""
        return penalty


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score(Objective):
    """`-A_i log pi_i(u_i)`: one step along the score function (Williams, 1992)."""

    def loss(self, log_probs: jax.Array, old_log_probs: jax.Array, advantages: jax.Array) -> jax.Array:
        return score_loss(log_probs, advantages)


# The method


class Before(NamedTuple):
    """What is known of T steps before the policy moves; constants of the loss."""

    log_policies: jax.Array  # (T, n, A), of the policy that has acted
    advantages: jax.Array  # (T, n)
    targets: Any  # (T, ...), what the critic learns towards


class Unrolled(NamedTuple):
    """A trajectory of T steps with what the networks make of it."""

    trajectory: Trajectory
    outputs: jax.Array  # (T + 1, n, A + k), of the agents' networks
    log_policies: jax.Array  # (T + 1, n, A)
    next_actions: jax.Array  # (T, n), those that follow each step


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyMethod(Settings, abc.ABC):
    """What makes a policy-gradient algorithm: a critic and the advantages that it gives.

    Subclasses may make settings of its class variables. Of several bases the one whose settings they are
    comes first: dataclasses would take the class variable of another one instead, without a word.
    """

    #: Whether it can play games with a reward per agent.
    general_sum: ClassVar[bool] = False
    #: Whether it learns from whole episodes only.
    whole_episodes: ClassVar[bool] = False
    #: Outputs of the agents' networks besides logits.
    extra_outputs: ClassVar[int] = 0
    #: Weight of the critic's loss.
    value_coefficient: ClassVar[float] = 1.0
    #: The critic's step size; None for that of the agents' networks.
    critic_learning_rate: ClassVar[float | None] = None
    #: Updates between copies of the parameters to the target network; 0 for methods without one.
    target_period: ClassVar[int] = 0

    def check(self, game: GameSpec, rollout_length: int) -> None:
        """Refuse a game, or rollouts, that the method does not work with.

        Raises:
            BadInputError: saying why.
        """
        refuse_numbers(game)
        if not self.general_sum:
            refuse_reward_per_agent(game)

    @abc.abstractmethod
    def critic(self, game: GameSpec) -> nn.Module:
        """The critic as a module, `CriticInputs` to values."""

    @abc.abstractmethod
    def estimate(self, online: Any, target: Any, seen: Unrolled, gamma: float) -> tuple[jax.Array, Any]:
        """Advantages `(T, n)`, and what the critic learns towards, `(T, ...)`.

        `online` and `target` are the network bound to the learning and to the target parameters.
        """

    @abc.abstractmethod
    def critic_loss(self, online: Any, outputs: jax.Array, trajectory: Trajectory, targets: Any) -> jax.Array:
        """The critic's loss `(T,)` of each step, given the agents' outputs `(T + 1, n, A + k)`."""

    def counted(self, trajectory: Trajectory, time_limit: int) -> jax.Array:
        """Which of a trajectory's steps are learned from, `(T,)`: 1 or 0."""
        return trajectory.mask

    def random_share(self, clock: Clock) -> jax.Array | None:
        """The share `()` of the policy that is uniform over the available actions; None for none."""
        return None

    def memory(self, rollout: Rollout) -> Memory:
        """What the learner is fed from: rollouts, or `Together(fresh=rollout, ...)` with other memories."""
        return rollout

    def model_loss(self, outputs: jax.Array) -> jax.Array | None:
        """The loss `(T,)` of what the agents' networks say of their views; None where they say nothing.

        Of their outputs `(T, n, A + k)`.
        """
        return None

    def other_loss(self, online: Any, target: Any, batch: Any, gamma: float) -> jax.Array | None:
        """A loss `()` of what else the memory gives; None where there is nothing."""
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reinforce(PolicyMethod):
    """REINFORCE: `A_i = G`, the discounted return of what followed (Williams, 1992; thesis, 2.26).

    Only whole episodes count, those that began where the longest would have ended within the rollout:
    counting whatever ended there would favour actions that end episodes.
    """

    general_sum: ClassVar[bool] = True
    whole_episodes: ClassVar[bool] = True
    value_coefficient: ClassVar[float] = 0.0

    def check(self, game: GameSpec, rollout_length: int) -> None:
        super().check(game, rollout_length)
        least = 2 * game.time_limit if game.time_limit > 1 else 1  # some episode begins in the first half
        if rollout_length < least:
            raise BadInputError(
                f"returns of whole episodes need a rollout_length of at least {least} in {game.name}, twice "
                f"its longest episode, not {rollout_length}"
            )

    def critic(self, game: GameSpec) -> NoCritic:
        return NoCritic()

    def counted(self, trajectory: Trajectory, time_limit: int) -> jax.Array:
        length = trajectory.mask.shape[0]
        beginnings = jnp.where(trajectory.first[:-1], jnp.arange(length), -1)
        began = jax.lax.cummax(beginnings)  # (T,), at which row; -1 before the rollout
        return trajectory.mask * ((began >= 0) & (began + time_limit <= length))

    def estimate(self, online: Any, target: Any, seen: Unrolled, gamma: float) -> tuple[jax.Array, Any]:
        nothing = jnp.zeros(seen.trajectory.actions.shape)  # is worth what follows an episode
        return trajectory_returns(seen.trajectory, nothing, gamma, 1.0), ()

    def critic_loss(self, online: Any, outputs: jax.Array, trajectory: Trajectory, targets: Any) -> jax.Array:
        return jnp.zeros_like(trajectory.mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticMethod(PolicyMethod):
    """A method with a critic that learns from TD(lambda) returns.

    Attributes:
        td_lambda: lambda of the returns; 1 trusts the rewards alone up to the rollout's end.
        value_coefficient: weight of the critic's loss beside that of the policies.
    """

    td_lambda: Probability = 0.8
    value_coefficient: NotNegative = 0.5  # type: ignore[misc]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValueMethod(CriticMethod):
    """A method whose critic values states: `A = G^lambda - V`, with one V for all or one for each agent."""

    def values(self, online: Any, outputs: jax.Array, trajectory: Trajectory) -> jax.Array:
        """`(T + 1,)` or `(T + 1, n)` at a trajectory's observations. Nothing learns from the last."""
        nobody = jnp.zeros(outputs.shape[:2], jnp.int32)  # values do not depend on actions
        steps = outputs, trajectory.observation, nobody
        return over_time(PolicyNetwork.evaluate, online, *steps, freeze_last=True)  # type: ignore[no-any-return]

    def estimate(self, online: Any, target: Any, seen: Unrolled, gamma: float) -> tuple[jax.Array, Any]:
        values = self.values(online, seen.outputs, seen.trajectory)
        returns = trajectory_returns(seen.trajectory, values[1:], gamma, self.td_lambda)
        advantages = returns - values[:-1]
        if advantages.ndim == 1:  # the same for every agent
            advantages = jnp.broadcast_to(advantages[:, None], seen.trajectory.actions.shape)
        return advantages, returns

    def critic_loss(self, online: Any, outputs: jax.Array, trajectory: Trajectory, targets: Any) -> jax.Array:
        """`(V - G^lambda)^2`, summed over agents that have values of their own."""
        errors = jnp.square(self.values(online, outputs, trajectory)[:-1] - targets)
        return jnp.sum(errors, axis=tuple(range(1, errors.ndim)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndependentValues(ValueMethod):
    """Every agent's own value `V_i(o_i)`, an output of its network (A2C; thesis, 2.28)."""

    general_sum: ClassVar[bool] = True
    extra_outputs: ClassVar[int] = 1

    def critic(self, game: GameSpec) -> OwnValues:
        return OwnValues()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CentralMethod(CriticMethod):
    """A method with a critic of its own that sees the state.

    Attributes:
        critic_hidden: widths of the critic's hidden layers.
        critic_learning_rate: the critic's step size.
    """

    critic_hidden: Widths = (128, 128)
    critic_learning_rate: Positive = 5e-4  # type: ignore[assignment,misc]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CentralValue(CentralMethod, ValueMethod):  # in this order: see `PolicyMethod`
    """One value of the state, V(s), for all agents."""

    def critic(self, game: GameSpec) -> StateValue:
        return StateValue(self.critic_hidden)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CentralAction(CentralMethod):
    """The policy gradient with a central critic: `A_i = Q(s, u_1, ..., u_n)` (thesis, 2.71)."""

    def critic(self, game: GameSpec) -> JointActionValue:
        return JointActionValue(game.num_actions, self.critic_hidden)

    def estimate(self, online: Any, target: Any, seen: Unrolled, gamma: float) -> tuple[jax.Array, Any]:
        trajectory = seen.trajectory
        values = evaluate_taken(online, seen.outputs[:-1], trajectory)
        following = after_steps((seen.outputs, trajectory.observation))
        next_values = over_time(PolicyNetwork.evaluate, target, *following, seen.next_actions)
        returns = trajectory_returns(trajectory, next_values, gamma, self.td_lambda)
        return jnp.broadcast_to(values[:, None], trajectory.actions.shape), returns

    def critic_loss(self, online: Any, outputs: jax.Array, trajectory: Trajectory, targets: Any) -> jax.Array:
        """`(Q(s, u) - G^lambda)^2`."""
        return jnp.square(evaluate_taken(online, outputs[:-1], trajectory) - targets)


def evaluate_taken(network: Any, outputs: jax.Array, trajectory: Trajectory) -> Any:
    """What the critic says of the T steps that were taken, given the agents' outputs `(T, n, A + k)`."""
    steps = outputs, before_steps(trajectory.observation), trajectory.actions
    return over_time(PolicyNetwork.evaluate, network, *steps)


# The learner


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyGradient(Settings):
    """On-policy learning from rollouts, all agents at once.

    Losses are sums over agents, whose gradient is that of the team's policy `prod_i pi_i(u_i|o_i)`, and means
    over steps, times the share of a rollout's rows that are steps.

    Attributes:
        method: what makes the algorithm.
        agents: their networks.
        objective: how the policy follows its advantages.
        optimiser: how parameters are changed.
        rollout_length: steps of each environment in one update; None is the longest episode and its reset,
            twice that for methods that learn from whole episodes only, and one step in one-shot games.
        gamma: discount factor.
        entropy_coefficient: weight of the entropy of the agents' policies, at the start of training.
        entropy_end: the same at the end of training, linearly from the start; None to keep it.
        normalise_advantages: whether a batch's advantages are shifted and scaled to mean 0 and variance 1.
    """

    method: PolicyMethod
    agents: FeedForwardAgents = Agents()
    objective: Objective = Score()
    optimiser: Optimiser = Optimiser(max_grad_norm=10.0)
    rollout_length: Count | None = 32
    gamma: Probability = 0.99
    entropy_coefficient: NotNegative = 0.01
    entropy_end: NotNegative | None = None
    normalise_advantages: bool = False

    @property
    def recurrent(self) -> bool:
        """Whether agents have a memory."""
        return isinstance(self.agents, Agents) and self.agents.recurrent

    def network(self, game: GameSpec) -> PolicyNetwork:
        """The agents' networks and the critic."""
        outputs = game.num_actions + self.method.extra_outputs
        return PolicyNetwork(self.agents.network(outputs), self.method.critic(game))

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        """See `Algorithm.bind`."""
        whole = (game.time_limit + 1) * (2 if self.method.whole_episodes else 1)
        length = self.rollout_length or (whole if game.time_limit > 1 else 1)
        method, objective, module = self.method, self.objective, self.network(game)
        method.check(game, length)
        if num_envs % objective.minibatches:
            raise BadInputError(
                f"minibatches must divide num_envs, {num_envs}, which {objective.minibatches} does not"
            )
        if self.normalise_advantages and num_envs * length == 1:
            raise BadInputError(
                "a rollout_length of 1 in one environment leaves nothing to normalise advantages by: "
                "raise one of them, or normalise none"
            )
        memory = method.memory(Rollout(length))

        def init(key: jax.Array) -> LearnerState:
            params = module.init(key, game.observation())
            opt_state = {name: self.optimiser.init(part) for name, part in params["params"].items()}
            if objective.first_penalty is not None:
                opt_state["penalty"] = jnp.float32(objective.first_penalty)
            return LearnerState(params, params if method.target_period else (), opt_state)

        def before(params: Params, target: Any, fresh: Trajectory, clock: Clock, key: jax.Array) -> Before:
            """What is known of a batch `(E, T)` of rollouts before an update."""
            online: Any = module.bind(params)

            def of_one(trajectory: Trajectory, key: jax.Array) -> Before:
                outputs = online.unroll(trajectory)
                masks = trajectory.observation.action_mask
                logs = log_policies(outputs, masks, method.random_share(clock))
                last = sample_actions(key, jnp.exp(logs[-1]))  # as if the rollout went on
                actions = jnp.concatenate([trajectory.actions[1:], last[None]])
                seen = Unrolled(trajectory, outputs, logs, actions)
                return Before(logs[:-1], *method.estimate(online, target, seen, self.gamma))

            found: Before = over_batch(of_one, fresh, jax.random.split(key, num_envs))
            if self.normalise_advantages:
                found = found._replace(advantages=normalised(found.advantages, fresh.mask))
            return found

        def step_losses(params: Params, batch: Trajectory, known: Before, clock: Clock) -> Metrics:
            """What the loss is made of: means over the steps of a batch, sums over agents; each `()`."""
            online: Any = module.bind(params)

            def of_one(trajectory: Trajectory, known: Before) -> Metrics:
                outputs, masks = online.unroll(trajectory), trajectory.observation.action_mask[:-1]
                logs = log_policies(outputs[:-1], masks, method.random_share(clock))  # (T, n, A)
                taken, old = (
                    jax.vmap(chosen)(each, trajectory.actions) for each in (logs, known.log_policies)
                )
                losses = jax.vmap(objective.loss)(taken, old, known.advantages)  # (T, n)
                apart = jnp.where(masks, jnp.exp(known.log_policies) * (known.log_policies - logs), 0)
                of_model = method.model_loss(outputs[:-1])
                return {
                    **({} if of_model is None else {"model_loss": of_model}),
                    "policy_loss": jnp.sum(losses, axis=-1),
                    "critic_loss": method.critic_loss(online, outputs, trajectory, known.targets),
                    "entropy": jnp.sum(entropy(logs, masks), axis=-1),
                    "divergence": jnp.sum(apart, axis=(-2, -1)),
                }

            each = over_batch(of_one, batch, known)  # (B, T)
            return jax.tree.map(functools.partial(masked_mean, mask=batch.mask), each)  # type: ignore[no-any-return]

        def update(
            state: LearnerState, batch: Any, clock: Clock, key: jax.Array
        ) -> tuple[LearnerState, Metrics]:
            fresh: Trajectory = batch["fresh"] if isinstance(batch, dict) else batch
            counted = over_batch(lambda trajectory: method.counted(trajectory, game.time_limit), fresh)
            fresh = fresh._replace(mask=counted)
            target: Any = module.bind(state.target_params if method.target_period else state.params)
            last_key, order_key = jax.random.split(key)
            known = jax.lax.stop_gradient(before(state.params, target, fresh, clock, last_key))
            penalty = state.opt_state.get("penalty")

            def loss(params: Params, part: Trajectory, known: Before) -> tuple[jax.Array, Metrics]:
                parts = step_losses(params, part, known, clock)
                total = parts["policy_loss"] + method.value_coefficient * parts["critic_loss"]
                weight = annealed(self.entropy_coefficient, self.entropy_end, clock.progress)
                total -= weight * parts["entropy"]
                total += parts.get("model_loss", 0.0)
                if penalty is not None:
                    total += penalty * parts["divergence"]
                # Divided by a rollout's rows, whose number is constant. That of its steps depends on the
                # actions: dividing by it would give steps of short episodes more weight.
                total *= jnp.mean(part.mask)
                other = method.other_loss(module.bind(params), target, batch, self.gamma)
                if other is not None:
                    total += other
                return total, {"loss": total, **parts}

            def gradient_step(
                params: Params, opt_state: Any, part: Trajectory, known: Before
            ) -> tuple[Params, Any, Metrics]:
                gradients, metrics = jax.grad(loss, has_aux=True)(params, part, known)
                return *self._step(params, gradients, opt_state, clock), metrics

            passes = objective.epochs * objective.minibatches
            if passes == 1:
                params, opt_state, metrics = gradient_step(state.params, state.opt_state, fresh, known)
            else:

                def on_part(carry: tuple[Params, Any], rows: jax.Array) -> tuple[Any, Metrics]:
                    of_part = jax.tree.map(lambda leaf: leaf[rows], known)
                    params, opt_state, metrics = gradient_step(*carry, take(fresh, rows), of_part)
                    return (params, opt_state), metrics

                orders = jax.vmap(lambda key: jax.random.permutation(key, num_envs))(
                    jax.random.split(order_key, objective.epochs)
                )  # (epochs, E)
                carry = state.params, state.opt_state
                (params, opt_state), each = jax.lax.scan(on_part, carry, orders.reshape(passes, -1))
                metrics = jax.tree.map(jnp.mean, each)
            if penalty is not None:
                moved = step_losses(params, fresh, known, clock)["divergence"] / game.num_agents
                opt_state |= {"penalty": objective.next_penalty(penalty, moved)}
                metrics |= {"penalty": penalty}
            elif passes == 1:
                del metrics["divergence"]  # always 0
            return state.replace(params=params, opt_state=opt_state), metrics  # type: ignore[attr-defined]

        when = periods(memory, game, num_envs, target_period=method.target_period)
        return Learner(memory, when, init, *self.acting(game), update)

    def acting(self, game: GameSpec) -> Play:
        """How the agents act."""
        return play(self.network(game), game, self.recurrent, self.method.random_share)

    def _step(self, params: Params, gradients: Params, opt_state: Any, clock: Clock) -> tuple[Params, Any]:
        """Parameters after one step of the agents' networks and one of the critic, each with its clipping."""
        of_agents, of_critic = self.optimiser, self.optimiser
        if self.method.critic_learning_rate is not None:
            of_critic = dataclasses.replace(of_critic, learning_rate=self.method.critic_learning_rate)
        stepped, opt_state = {}, dict(opt_state)
        for name, part in params["params"].items():
            optimiser = of_critic if name == "critic" else of_agents
            stepped[name], opt_state[name] = optimiser.step(
                part, gradients["params"][name], opt_state[name], clock.progress
            )
        return {"params": stepped}, opt_state


def normalised(advantages: jax.Array, mask: jax.Array) -> jax.Array:
    """Advantages `(B, T, n)` with mean 0 and variance 1 where the mask `(B, T)` is 1."""
    mask = jnp.broadcast_to(mask[..., None], advantages.shape)
    centred = advantages - masked_mean(advantages, mask)
    return centred / (jnp.sqrt(masked_mean(jnp.square(centred), mask)) + 1e-8)
