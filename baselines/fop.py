"""FOP: soft policies whose joint optimum factorizes, by twin critics that are mixed from the agents' own."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.parts import Agents, EpsilonGreedy, Optimiser, Replay, check_reach
from baselines.policies import log_policies, play
from baselines.q_learning import AgentsNetwork, after_steps, before_steps
from envs.base import Observation
from jaxmarl_fac.algorithm import Learner, LearnerState, Metrics, Params, periods
from jaxmarl_fac.experience import Clock, Trajectory, over_batch
from jaxmarl_fac.exploration import linear_epsilon, sample_actions
from jaxmarl_fac.game import GameSpec, refuse_numbers, refuse_reward_per_agent
from jaxmarl_fac.mixers import FOPMixer, MixerInputs
from jaxmarl_fac.networks import over_time
from jaxmarl_fac.policy_gradients import entropy, soft_value
from jaxmarl_fac.settings import AnyWidths, Count, Positive, Probability, Settings
from jaxmarl_fac.targets import trajectory_returns
from jaxmarl_fac.values import chosen, masked_mean


class SoftCritic(AgentsNetwork):
    """Soft values Q_i of every agent, and the joint value that is mixed from them.

    Args:
        agent: see `AgentsNetwork`.
        mixer: `MixerInputs -> ()`, given the soft values as `best_utilities`.
    """

    mixer: nn.Module

    def __call__(self, observation: Observation) -> jax.Array:
        """Touches every parameter; for initialisation."""
        values = self.utilities(observation)
        return self.mix(values, jnp.zeros(values.shape[0], jnp.int32), observation, jnp.ones(()))

    def mix(
        self, values: jax.Array, actions: jax.Array, observation: Observation, alpha: jax.Array
    ) -> jax.Array:
        """Q_jt `()` of the joint action `(n,)`, from Q_i `(n, A)`, with the entropy weight alpha `()`."""
        soft = functools.partial(soft_value, alpha=alpha)
        return self.mixer(  # type: ignore[no-any-return]
            MixerInputs(
                utilities=chosen(values, actions),
                best_utilities=jax.vmap(lambda q, mask: soft(q, action_mask=mask))(
                    values, observation.action_mask
                ),
                actions=jax.nn.one_hot(actions, values.shape[-1]),
                agents_view=observation.agents_view,
                global_state=observation.global_state,
            )
        )


class FOPNetwork(AgentsNetwork):
    """The agents' policies, as logits, and two critics.

    Args:
        agent: see `AgentsNetwork`.
        critics: twins, which start differently.
    """

    critics: tuple[SoftCritic, SoftCritic]

    def __call__(self, observation: Observation) -> Any:
        """Touches every parameter; for initialisation."""
        return self.utilities(observation), [critic(observation) for critic in self.critics]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FOP(Settings):
    """FOP (Zhang et al., 2021): `pi_i` follows `Q_i`, and `Q_jt` is mixed so that their optima agree.

    Critics learn towards TD(lambda) returns of `min(Q_jt, Q'_jt) - alpha mean_i log pi_i` of actions that the
    policies draw anew; policies minimise `sum_a pi_i (alpha log pi_i - min(Q_i, Q'_i))`.

    Attributes:
        agents: networks of the policies, and of the critics' Q_i.
        replay: what is kept of experience.
        optimiser: how parameters are changed.
        exploration: the share of uniform actions in what the policies play.
        gamma: discount factor.
        td_lambda: lambda of the critics' targets; above 0 it needs episodes.
        target_period: updates between copies of the parameters to the target networks.
        alpha_start: entropy weight at the first step.
        alpha_end: entropy weight after `alpha_steps` environment steps, falling linearly.
        alpha_steps: see `alpha_end`; the release reaches its .05 after 90,000.
        kernels: summands of the mixers' lambda_i.
        kernel_hidden: hidden layers of their networks.
        heads: of the mixers' attention.
        head_embed: length of their keys and queries.

    Raises:
        BadInputError: for recurrent agents, or a `td_lambda` above 0, that are not to learn from episodes.
    """

    agents: Agents = Agents()
    replay: Replay = Replay(consumes="episodes", replay_size=5000)
    optimiser: Optimiser = Optimiser(max_grad_norm=10.0)
    exploration: EpsilonGreedy = EpsilonGreedy(epsilon_end=0.05, epsilon_steps=50_000)
    gamma: Probability = 0.99
    td_lambda: Probability = 0.8
    target_period: Count = 200
    alpha_start: Positive = 0.5
    alpha_end: Positive = 0.05
    alpha_steps: Count = 90_000
    kernels: Count = 4
    kernel_hidden: AnyWidths = (64,)
    heads: Count = 4
    head_embed: Count = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_reach(self.replay, self.agents.recurrent, self.td_lambda)

    def alpha(self, clock: Clock) -> jax.Array:
        """The entropy weight `()`, in units of reward."""
        return linear_epsilon(clock.env_steps, self.alpha_start, self.alpha_end, self.alpha_steps)

    def network(self, game: GameSpec) -> FOPNetwork:
        """The policies and the critics."""

        def critic() -> SoftCritic:
            mixer = FOPMixer(self.kernels, self.kernel_hidden, self.heads, self.head_embed)
            return SoftCritic(self.agents.network(game.num_actions), mixer)

        return FOPNetwork(self.agents.network(game.num_actions), (critic(), critic()))

    def losses(
        self, online: Any, target: Any, trajectory: Trajectory, alpha: jax.Array, key: jax.Array
    ) -> Metrics:
        """What the loss is made of, for each step `(T,)` of one trajectory.

        Args:
            online: the network bound to the learning parameters.
            target: the network bound to the target parameters.
            trajectory: of T steps.
            alpha: entropy weight `()`.
            key: of the actions that the policies draw.
        """
        observations, actions = trajectory.observation, trajectory.actions
        masks, following = observations.action_mask[:-1], after_steps(observations)
        logs = log_policies(online.unroll(trajectory), observations.action_mask)  # (T + 1, n, A)
        next_logs = jax.lax.stop_gradient(logs[1:])
        next_actions = sample_actions(key, jnp.exp(next_logs))  # (T, n)

        def joint(critic: Any, values: jax.Array, actions: jax.Array, seen: Observation) -> jax.Array:
            return over_time(  # type: ignore[no-any-return]
                lambda critic, *step: critic.mix(*step, alpha), critic, values, actions, seen
            )

        values = [critic.unroll(trajectory)[:-1] for critic in online.critics]  # (T, n, A)
        q_jt = jnp.stack(
            [
                joint(critic, each, actions, before_steps(observations))
                for critic, each in zip(online.critics, values, strict=True)
            ]
        )  # (2, T)
        next_q_jt = jnp.stack(
            [
                joint(critic, critic.unroll(trajectory)[1:], next_actions, following)
                for critic in target.critics
            ]
        )  # (2, T)
        log_probs = jax.vmap(chosen)(next_logs, next_actions)  # (T, n)
        next_values = jnp.min(next_q_jt, axis=0) - alpha * jnp.mean(log_probs, axis=-1)
        y = trajectory_returns(trajectory, next_values, self.gamma, self.td_lambda)
        least = jax.lax.stop_gradient(jnp.minimum(*values))  # (T, n, A)
        policies = jnp.where(masks, jnp.exp(logs[:-1]), 0)
        policy_loss = jnp.sum(policies * jnp.where(masks, alpha * logs[:-1] - least, 0), axis=-1)  # (T, n)
        return {
            "critic_loss": jnp.sum(jnp.square(q_jt - y), axis=0),
            "policy_loss": jnp.mean(policy_loss, axis=-1),
            "entropy": jnp.mean(entropy(logs[:-1], masks), axis=-1),
            "mean_q_tot": q_jt[0],
        }

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        """See `Algorithm.bind`."""
        refuse_numbers(game)
        refuse_reward_per_agent(game)
        memory, module = self.replay.memory(), self.network(game)

        def init(key: jax.Array) -> LearnerState:
            params = module.init(key, game.observation())
            return LearnerState(params, params, self.optimiser.init(params))

        def update(
            state: LearnerState, batch: Trajectory, clock: Clock, key: jax.Array
        ) -> tuple[LearnerState, Metrics]:
            alpha, keys = self.alpha(clock), jax.random.split(key, batch.actions.shape[0])

            def loss(params: Params) -> tuple[jax.Array, Metrics]:
                online, target = module.bind(params), module.bind(state.target_params)
                each = over_batch(
                    lambda trajectory, key: self.losses(online, target, trajectory, alpha, key), batch, keys
                )  # (B, T)
                means: Metrics = jax.tree.map(functools.partial(masked_mean, mask=batch.mask), each)
                total = means["critic_loss"] + means["policy_loss"]
                return total, {"loss": total, **means}

            gradients, metrics = jax.grad(loss, has_aux=True)(state.params)
            params, opt_state = self.optimiser.step(state.params, gradients, state.opt_state, clock.progress)
            return state.replace(params=params, opt_state=opt_state), metrics  # type: ignore[attr-defined]

        when = periods(
            memory,
            game,
            num_envs,
            learning_starts=self.replay.learning_starts,
            update_period=self.replay.update_period,
            target_period=self.target_period,
        )
        acting = play(module, game, self.agents.recurrent, self.exploration.epsilon)
        return Learner(memory, when, init, *acting, update)
