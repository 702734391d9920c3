"""The Bayesian action decoder: a public agent that acts through partial policies, by the public belief.

(Foerster et al., 2019.) Everybody knows the public observations and all actions, and so can compute the
belief over states and private observations. A public agent chooses by it, for each player, an action for
every private observation: a partial policy. Each player looks its own observation up; what it plays then
tells the others what it holds, by Bayes' rule. Choices are drawn by a seed that all players share.
"""

import abc
import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.parts import Optimiser
from envs.base import Observation, compact_dtype
from envs.errors import BadInputError
from envs.team_pomdp import HiddenModel
from jaxmarl_fac.algorithm import Learner, LearnerState, Metrics, Params, periods
from jaxmarl_fac.experience import Clock, Decision, Trajectory, over_batch
from jaxmarl_fac.exploration import sample_actions
from jaxmarl_fac.game import GameSpec, refuse_numbers, refuse_reward_per_agent
from jaxmarl_fac.memory import Rollout
from jaxmarl_fac.networks import MLP
from jaxmarl_fac.policy_gradients import annealed, entropy, log_policy, score_loss
from jaxmarl_fac.settings import Count, NotNegative, Probability, Settings, Widths
from jaxmarl_fac.soft.belief import public_move, public_start, public_update
from jaxmarl_fac.targets import trajectory_returns
from jaxmarl_fac.values import greedy_actions, mask_unavailable, masked_mean

# Beliefs


class Told(NamedTuple):
    """What everybody has seen the players do."""

    policies: jax.Array  # (n, O, A), by which they acted: chances of actions for each private observation
    actions: jax.Array  # (n,) int32, the joint action; -1 before the first


class PublicView(NamedTuple):
    """What the public agent sees, and what that makes possible."""

    features: jax.Array  # (F,): the public observation, and chances of private observations and of states
    held: jax.Array  # (n, O) bool, what each player may hold


class PublicBelief(Settings, abc.ABC):
    """How the public agent keeps its belief. What it remembers is any tree, the same at every step."""

    @abc.abstractmethod
    def fresh(self, game: GameSpec, seed: jax.Array) -> Any:
        """What everybody knows before the first public observation, given a public seed `()` uint32."""

    @abc.abstractmethod
    def see(self, game: GameSpec, memory: Any, public_view: jax.Array) -> tuple[Any, PublicView]:
        """What is remembered, and seen, after a public observation, one-hot `(P,)`."""

    @abc.abstractmethod
    def tell(self, game: GameSpec, memory: Any, told: Told) -> Any:
        """What everybody knows after a joint action and before the next public observation."""

    def seed(self, memory: Any) -> Any:
        """The public seed `()` in a memory; () for beliefs that draw nothing."""
        return ()


class ExactMemory(NamedTuple):
    """The exact public belief before a public observation."""

    belief: jax.Array  # (S, O, ..., O), of the state and the private observations
    actions: jax.Array  # (n,) int32, the last joint action; -1 at the start


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactBelief(PublicBelief):
    """Bayes' rule over all states and private observations."""

    def fresh(self, game: GameSpec, seed: jax.Array) -> ExactMemory:
        nobody = jnp.full((game.num_agents,), -1, jnp.int32)
        return ExactMemory(public_start(tables(game)), nobody)

    def see(
        self, game: GameSpec, memory: ExactMemory, public_view: jax.Array
    ) -> tuple[ExactMemory, PublicView]:
        model = tables(game)
        after = model.public[tuple(jnp.maximum(memory.actions, 0))]  # (S, P); the first state has no action
        shown = jnp.where(memory.actions[0] < 0, model.first_public, after)
        belief = public_update(shown, memory.belief, jnp.argmax(public_view))
        axes = range(belief.ndim)
        states, *held = (jnp.sum(belief, axis=tuple(axis for axis in axes if axis != kept)) for kept in axes)
        view = public_features(public_view, jnp.stack(held), states)
        return memory._replace(belief=belief), view

    def tell(self, game: GameSpec, memory: ExactMemory, told: Told) -> ExactMemory:
        belief = public_move(tables(game), memory.belief, tuple(told.policies), told.actions)
        return ExactMemory(belief, told.actions)


def public_features(public_view: jax.Array, held: jax.Array, states: jax.Array) -> PublicView:
    """The view by a public observation `(P,)` and the belief's marginals `(n, O)` and `(S,)`."""
    features = jnp.concatenate([public_view, held.ravel(), states])
    return PublicView(features.astype(jnp.float32), held > 0)


# The agent


class PublicNetwork(nn.Module):
    """The public agent: logits `(n, O, A)` of the partial policies, and the value `()` of the belief.

    Args:
        shape: `(n, O, A)`.
        hidden: widths of the hidden layers of either.
    """

    shape: tuple[int, int, int]
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        players, seen, actions = self.shape
        logits = MLP(self.hidden, players * seen * actions, name="policy")(features)
        return logits.reshape(self.shape), MLP(self.hidden, 1, name="value")(features)[0]


class PublicStep(NamedTuple):
    """What is stored with a step."""

    choices: jax.Array  # (n, O), each player's action for each private observation
    seed: Any  # (), the public one, by which a belief at the start of an episode is drawn again


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublicAgent(Settings):
    """A public agent with a belief, trained by the policy gradient from rollouts.

    The gradient is that of the whole partial policy, `A Σ_i Σ_o log π(û_i(o) | B)`: what a player would have
    done with what it does not hold counts too, since it makes what the others believe. Observations that no
    player can hold are left out. `A = G^λ - V(B)`.

    Partial policies must stay random until the others have learned what to reply to each: a player that sees
    its signals answered at random first learns the action that needs no reply. So the entropy's weight begins
    in the order of the rewards' differences, and falls linearly over the whole training.

    Attributes:
        belief: how the belief is kept.
        tremble: the chance that a player plays at random instead, any of its available actions. The others
            know of it: partial policies are then probabilistic, and no action is ever impossible. In greedy
            play nobody trembles, but all believe as if.
        optimiser: how parameters are changed.
        hidden: widths of the hidden layers of the policy and of the value.
        rollout_length: steps of each environment in one update; None is the longest episode and its reset.
        gamma: discount factor.
        td_lambda: lambda of the returns; 1 trusts the rewards alone up to the rollout's end.
        value_coefficient: weight of the value's loss.
        entropy_coefficient: weight of the entropy of the partial policies, at the start of training.
        entropy_end: the same at the end of training; None to keep it.
    """

    belief: PublicBelief
    tremble: Probability = 0.0
    optimiser: Optimiser = Optimiser(learning_rate=3e-3, max_grad_norm=10.0)
    hidden: Widths = (32,)
    rollout_length: Count | None = None
    gamma: Probability = 1.0
    td_lambda: Probability = 1.0
    value_coefficient: NotNegative = 0.5
    entropy_coefficient: NotNegative = 2.0
    entropy_end: NotNegative | None = 0.01

    def network(self, game: GameSpec) -> PublicNetwork:
        """The public agent's."""
        return PublicNetwork((game.num_agents, game.num_private, game.num_actions), self.hidden)

    def policies(self, choices: jax.Array, masks: jax.Array) -> jax.Array:
        """How the players act `(n, O, A)` who are told `choices (n, O)` and may do `masks (n, O, A)`."""
        follow = jax.nn.one_hot(choices, masks.shape[-1], dtype=jnp.float32)
        anything = masks / jnp.sum(masks, axis=-1, keepdims=True, dtype=jnp.float32)
        return (1 - self.tremble) * follow + self.tremble * anything

    def views(self, game: GameSpec, trajectory: Trajectory) -> PublicView:
        """What the public agent saw, `(T + 1, ...)`: beliefs follow from what is stored of each step."""

        def step(memory: Any, at: tuple[Any, ...]) -> tuple[Any, PublicView]:
            observation, first, extras, actions = at
            fresh = self.belief.fresh(game, extras.seed)
            memory = jax.tree.map(lambda new, old: jnp.where(first, new, old), fresh, memory)
            memory, view = self.belief.see(game, memory, observation.public_view)
            masks = every_observation(observation.action_mask, game.num_private)
            policies = self.policies(extras.choices.astype(jnp.int32), masks)
            return self.belief.tell(game, memory, Told(policies, actions)), view

        def padded(leaf: jax.Array) -> jax.Array:
            return jnp.concatenate([leaf, leaf[-1:]])  # what follows the last observation is not used

        extras, actions = jax.tree.map(padded, (trajectory.extras, trajectory.actions))
        steps = (trajectory.observation, trajectory.first, extras, actions)
        return jax.lax.scan(step, trajectory.carry, steps)[1]

    def step_losses(self, game: GameSpec, params: Params, trajectory: Trajectory) -> Metrics:
        """The losses of each step, `(T,)`, by name."""
        seen, module = jax.lax.stop_gradient(self.views(game, trajectory)), self.network(game)
        found: Any = jax.vmap(lambda features: module.apply(params, features))(seen.features)
        logits, values = found
        masks = every_observation(trajectory.observation.action_mask[:-1], game.num_private)
        logs = log_policy(logits[:-1], masks)  # (T, n, O, A)
        choices = trajectory.extras.choices.astype(jnp.int32)
        of_choices = jnp.take_along_axis(logs, choices[..., None], axis=-1)[..., 0]  # (T, n, O)
        held = seen.held[:-1]
        next_values = jax.lax.stop_gradient(values[1:])
        returns = trajectory_returns(trajectory, next_values, self.gamma, self.td_lambda)
        return {
            "policy_loss": score_loss(jnp.sum(of_choices * held, axis=(-2, -1)), returns - values[:-1]),
            "critic_loss": jnp.square(values[:-1] - returns),
            "entropy": jnp.sum(entropy(logs, masks) * held, axis=(-2, -1)),
        }

    def gradients(
        self, game: GameSpec, params: Params, batch: Trajectory, progress: jax.Array
    ) -> tuple[Params, Metrics]:
        """Of the loss of a batch of rollouts at a moment of training in [0, 1], and what is logged of it."""

        def loss(params: Params) -> tuple[jax.Array, Metrics]:
            each = over_batch(lambda trajectory: self.step_losses(game, params, trajectory), batch)  # (B, T)
            parts = {name: masked_mean(leaf, batch.mask) for name, leaf in each.items()}
            total = parts["policy_loss"] + self.value_coefficient * parts["critic_loss"]
            total -= annealed(self.entropy_coefficient, self.entropy_end, progress) * parts["entropy"]
            # By a rollout's rows, as in `PolicyGradient`: the number of its steps depends on the actions.
            total *= jnp.mean(batch.mask)
            return total, {"loss": total, **parts}

        return jax.grad(loss, has_aux=True)(params)  # type: ignore[no-any-return]

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        """See `Algorithm.bind`."""
        refuse_numbers(game)
        refuse_reward_per_agent(game)
        refuse_nothing_public(game)
        memory = Rollout(self.rollout_length or game.time_limit + 1)
        module, belief, players = self.network(game), self.belief, jnp.arange(game.num_agents)

        def begin(params: Params, observation: Observation, key: jax.Array) -> Any:
            return belief.fresh(game, jax.random.bits(key, (), jnp.uint32))

        def init(key: jax.Array) -> LearnerState:
            observation = game.observation()
            _, view = belief.see(game, begin((), observation, key), jnp.asarray(observation.public_view))
            params = module.init(key, view.features)
            return LearnerState(params, (), self.optimiser.init(params))

        def decide(params: Params, carry: Any, observation: Observation, key: jax.Array | None) -> Decision:
            """By drawn partial policies, or without a key by the likeliest ones."""
            known, view = belief.see(game, carry, jnp.asarray(observation.public_view))
            logits: Any = module.apply(params, view.features)[0]
            masks = every_observation(observation.action_mask, game.num_private)
            if key is None:
                choices = greedy_actions(mask_unavailable(logits, masks))
                actions = choices[players, observation.private]
                policies = self.policies(choices, masks)
            else:
                public_key, own_key = jax.random.split(key)
                choices = sample_actions(public_key, jnp.exp(log_policy(logits, masks)))
                policies = self.policies(choices, masks)
                actions = sample_actions(own_key, policies[players, observation.private])
            extras = PublicStep(choices.astype(compact_dtype(game.num_actions - 1)), belief.seed(carry))
            return Decision(actions, belief.tell(game, known, Told(policies, actions)), extras)

        def act(
            params: Params, carry: Any, observation: Observation, clock: Clock, key: jax.Array
        ) -> Decision:
            return decide(params, carry, observation, key)

        def act_greedily(params: Params, carry: Any, observation: Observation, key: jax.Array) -> Decision:
            return decide(params, carry, observation, None)

        def update(
            state: LearnerState, batch: Trajectory, clock: Clock, key: jax.Array
        ) -> tuple[LearnerState, Metrics]:
            gradients, metrics = self.gradients(game, state.params, batch, clock.progress)
            params, opt_state = self.optimiser.step(state.params, gradients, state.opt_state, clock.progress)
            return state.replace(params=params, opt_state=opt_state), metrics  # type: ignore[attr-defined]

        return Learner(memory, periods(memory, game, num_envs), init, begin, act, act_greedily, update)


def refuse_nothing_public(game: GameSpec) -> None:
    """Refuse a game that a public agent cannot play.

    Raises:
        BadInputError: for one without public observations, without known tables, or of one agent.
    """
    lacks = ""
    if game.public_size == 0:
        lacks = "this one has no public observations"
    elif game.hidden_model() is None:
        lacks = "the tables of this one are not known"
    elif game.num_agents == 1:
        lacks = "this one has one agent"
    if lacks:
        raise BadInputError(
            "a public agent needs a game of two or more agents with known tables and public observations, "
            f"such as private-cards or two-agent-tiger: {lacks}"
        )


def tables(game: GameSpec) -> HiddenModel:
    """Those of a game, in float32 as networks take them."""
    model: HiddenModel = game.hidden_model()
    return HiddenModel(
        *(leaf if leaf.dtype == bool else leaf.astype(jnp.float32) for leaf in map(jnp.asarray, model))
    )


def every_observation(mask: jax.Array, num_private: int) -> jax.Array:
    """Which actions are available `(..., n, A)`, for every private observation: `(..., n, O, A)`."""
    return jnp.repeat(mask[..., None, :], num_private, axis=-2)
