"""MADDPG for discrete actions: policies climb centralised critics through relaxed samples."""

import dataclasses
import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.parts import Agents, Optimiser, Replay, check_reach
from baselines.policies import play
from baselines.q_learning import AgentsNetwork, after_steps, before_steps
from envs.base import Observation
from jaxmarl_fac.algorithm import Learner, LearnerState, Metrics, Params, periods
from jaxmarl_fac.experience import Clock, Trajectory, over_batch
from jaxmarl_fac.exploration import gumbel_softmax
from jaxmarl_fac.game import GameSpec, refuse_numbers
from jaxmarl_fac.networks import MLP, agent_inputs, of_all_agents, over_time
from jaxmarl_fac.policy_gradients import entropy, log_policy
from jaxmarl_fac.settings import Count, NotNegative, Positive, Probability, Settings, Widths
from jaxmarl_fac.targets import fresh_moments, standardised, td_target, updated_moments
from jaxmarl_fac.values import masked_mean


class CentralCritics(nn.Module):
    """`Q_i(x, u_1, ..., u_n)` of every agent i, `(n,)`: x is the state, the agent's view and an id.

    Args:
        widths: of the hidden layers.
        share_parameters: see `of_all_agents`.
    """

    widths: tuple[int, ...]
    share_parameters: bool

    @nn.compact
    def __call__(self, observation: Observation, actions: jax.Array) -> jax.Array:
        """Values of joint actions, one-hot: `(n, A)`, or `(n, n, A)` with another one for each agent."""
        views, state = observation.agents_view, observation.global_state
        n = views.shape[0]
        states = jnp.broadcast_to(state, (n, *state.shape))
        joint = jnp.broadcast_to(actions, (n, n, actions.shape[-1])).reshape(n, -1)  # (n, n A)
        mlp = of_all_agents(MLP, self.share_parameters)(self.widths, 1, name="critic")
        return mlp(agent_inputs(states, views, joint, agent_ids=True))[:, 0]  # type: ignore[no-any-return]


class PolicyAndCritics(AgentsNetwork):
    """The agents' policies, as logits, and their critics.

    Args:
        agent: see `AgentsNetwork`.
        critics: see `CentralCritics`.
    """

    critics: CentralCritics

    def __call__(self, observation: Observation) -> jax.Array:
        """Touches every parameter; for initialisation."""
        return self.values(observation, self.utilities(observation))

    def values(self, observation: Observation, actions: jax.Array) -> jax.Array:
        """See `CentralCritics`."""
        return self.critics(observation, actions)  # type: ignore[no-any-return]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MADDPGDiscrete(Settings):
    """MADDPG (Lowe et al., 2017) with discrete actions, by straight-through Gumbel-softmax, as in EPyMARL.

    The critics fit `y_i = r_i + gamma Q_i^-(x', u')`, u' drawn from the target policies. The policies climb
    `Q_i(x, u)` with the agent's own action drawn anew and relaxed; no gradient reaches the others' actions.

    A policy follows the slope of its critic at the joint action that was drawn. Between joint actions critics
    are never fitted: one that is exact at all of them may slope the wrong way, and keep its policy at a worse
    action.

    Unlike in EPyMARL, rewards are not standardised by default: a mean taken off every reward makes each step
    of an episode cheaper or dearer, which changes what is best where episodes differ in length.

    Attributes:
        agents: networks of the policies; critics are shared as these are.
        replay: what is kept of experience.
        optimiser: how parameters are changed.
        gamma: discount factor.
        target_period: updates between copies of the parameters to the target networks.
        critic_hidden: widths of the critics' hidden layers.
        temperature: of the relaxed samples.
        logit_penalty: weight of the mean squared logit.
        others_from: the other agents' actions beside which a policy is improved: those of the "replay" (Lowe
            et al., equation 6), or new samples of their "policies", as in EPyMARL.
        standardise_rewards: whether rewards are shifted and scaled to a running mean of 0 and variance of 1.

    Raises:
        BadInputError: for recurrent agents that are not to learn from episodes.
    """

    agents: Agents = Agents(hidden=(128, 128))
    replay: Replay = Replay(replay_size=50_000)
    optimiser: Optimiser = Optimiser()
    gamma: Probability = 0.99
    target_period: Count = 200
    critic_hidden: Widths = (128, 128)
    temperature: Positive = 1.0
    logit_penalty: NotNegative = 1e-3
    others_from: Literal["replay", "policies"] = "replay"
    standardise_rewards: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_reach(self.replay, self.recurrent, td_lambda=0.0)

    @property
    def recurrent(self) -> bool:
        """Whether agents have a memory."""
        return self.agents.recurrent

    def network(self, game: GameSpec) -> PolicyAndCritics:
        """The policies and the critics."""
        critics = CentralCritics(self.critic_hidden, self.agents.share_parameters)
        return PolicyAndCritics(self.agents.network(game.num_actions), critics)

    def losses(
        self,
        online: Any,
        frozen: Any,
        target: Any,
        trajectory: Trajectory,
        rewards: jax.Array,
        key: jax.Array,
    ) -> Metrics:
        """What the loss is made of, means over agents for each step `(T,)` of one trajectory.

        Args:
            online: the network bound to the learning parameters.
            frozen: bound to the same numbers, without gradient.
            target: bound to the target parameters.
            trajectory: of T steps.
            rewards: `(T, n)`.
            key: of the actions that the policies draw.
        """
        masks = trajectory.observation.action_mask  # (T + 1, n, A)
        before, after = before_steps(trajectory.observation), after_steps(trajectory.observation)
        logits, target_logits = online.unroll(trajectory), target.unroll(trajectory)  # (T + 1, n, A)
        next_key, key = jax.random.split(key)

        def values(network: Any, seen: Observation, actions: jax.Array) -> jax.Array:
            """Every agent's Q `(T, n)`."""
            return over_time(PolicyAndCritics.values, network, seen, actions)  # type: ignore[no-any-return]

        following = gumbel_softmax(next_key, target_logits[1:], masks[1:], self.temperature)
        next_q = values(target, after, following)
        y = td_target(rewards, trajectory.discount[:, None], self.gamma, next_q)  # (T, n)
        taken = jax.nn.one_hot(trajectory.actions, masks.shape[-1], dtype=logits.dtype)  # (T, n, A)
        critic_loss = jnp.square(values(online, before, taken) - y)

        logits, masks = logits[:-1], masks[:-1]
        drawn = gumbel_softmax(key, logits, masks, self.temperature)
        others = taken if self.others_from == "replay" else jax.lax.stop_gradient(drawn)
        own = jnp.eye(masks.shape[1], dtype=bool)[..., None]  # (n, n, 1)
        climbed = values(frozen, before, jnp.where(own, drawn[:, None], others[:, None]))
        penalty = jnp.mean(jnp.square(jnp.where(masks, logits, 0)), axis=(-2, -1))
        mean_q = jnp.mean(climbed, axis=-1)
        return {
            "critic_loss": jnp.mean(critic_loss, axis=-1),
            "policy_loss": self.logit_penalty * penalty - mean_q,
            "entropy": jnp.mean(entropy(log_policy(logits, masks), masks), axis=-1),
            "mean_q": mean_q,
        }

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        """See `Algorithm.bind`."""
        refuse_numbers(game)
        memory, module, n = self.replay.memory(), self.network(game), game.num_agents

        def init(key: jax.Array) -> LearnerState:
            params = module.init(key, game.observation())
            moments = fresh_moments(n) if self.standardise_rewards else ()
            return LearnerState(params, params, (self.optimiser.init(params), moments))

        def rewards_of(batch: Trajectory, moments: Any) -> tuple[jax.Array, Any]:
            """Rewards `(B, T, n)` as the critics learn from them, and the moments of all so far."""
            rewards = batch.reward if game.reward_per_agent else batch.reward[..., None]
            rewards = jnp.broadcast_to(rewards, batch.actions.shape)
            if not self.standardise_rewards:
                return rewards, moments
            moments = updated_moments(moments, rewards.reshape(-1, n), batch.mask.ravel())
            return standardised(rewards, moments), moments

        def update(
            state: LearnerState, batch: Trajectory, clock: Clock, key: jax.Array
        ) -> tuple[LearnerState, Metrics]:
            opt_state, moments = state.opt_state
            rewards, moments = rewards_of(batch, moments)
            keys = jax.random.split(key, batch.actions.shape[0])

            def loss(params: Params) -> tuple[jax.Array, Metrics]:
                online, frozen = module.bind(params), module.bind(jax.lax.stop_gradient(params))
                target = module.bind(state.target_params)
                losses = functools.partial(self.losses, online, frozen, target)
                each = over_batch(losses, batch, rewards, keys)  # (B, T)
                means: Metrics = jax.tree.map(functools.partial(masked_mean, mask=batch.mask), each)
                total = means["critic_loss"] + means["policy_loss"]
                return total, {"loss": total, **means}

            gradients, metrics = jax.grad(loss, has_aux=True)(state.params)
            params, opt_state = self.optimiser.step(state.params, gradients, opt_state, clock.progress)
            return LearnerState(params, state.target_params, (opt_state, moments)), metrics

        when = periods(
            memory,
            game,
            num_envs,
            learning_starts=self.replay.learning_starts,
            update_period=self.replay.update_period,
            target_period=self.target_period,
        )
        acting = play(module, game, self.recurrent, lambda clock: None)
        return Learner(memory, when, init, *acting, update)
