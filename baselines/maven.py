"""MAVEN: QMIX whose agents and mixer are conditioned on a latent that is held for a whole episode.

(Mahajan et al., 2019, "MAVEN: Multi-Agent Variational Exploration", arXiv 1910.07483; thesis, equations 2.77
to 2.80.) A latent z, one of K, is drawn at an episode's start, uniformly or by a policy that learns which of
them pay, and all agents know it. For each z the agents have utilities of their own, and so explore by playing
another joint policy from beginning to end. A discriminator that has to tell z from how the agents act keeps
these policies apart.
"""

import dataclasses
import math
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.factored import QMIX, Factored, FactoredNetwork, Mixing
from baselines.parts import Replay
from baselines.q_learning import QLearner, QLearning, before_steps
from envs.base import Observation, compact_dtype
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Act, ActGreedily, Begin, Metrics, Params
from jaxmarl_fac.experience import Clock, Decision, Trajectory, over_batch
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.memory import Episodes, Memory, Together
from jaxmarl_fac.networks import MLP, agent_inputs, of_all_agents
from jaxmarl_fac.policy_gradients import entropy, log_policy, score_loss
from jaxmarl_fac.products import Dense
from jaxmarl_fac.settings import AnyWidths, Count, NotNegative, OffOrAbove, at_least
from jaxmarl_fac.values import masked_mean

# Latents


class Latent(NamedTuple):
    """The latent of an episode, stored with each of its steps."""

    value: jax.Array  # () integer, z in 0 to K - 1
    log_prob: jax.Array  # (), log of the probability with which it was drawn


class Commitment(NamedTuple):
    """What agents keep in mind within an episode."""

    latent: Latent  # drawn
    best: jax.Array  # () integer, the latent that greedy play follows
    memory: Any  # of the agents' networks


def with_latent(observation: Observation, value: jax.Array | int, num_latents: int) -> Observation:
    """The observation with a latent `()`, one-hot, at the end of every agent's view and of the state."""
    code = jax.nn.one_hot(value, num_latents, dtype=observation.global_state.dtype)  # (K,)
    codes = jnp.broadcast_to(code, (observation.agents_view.shape[0], num_latents))
    return observation._replace(
        agents_view=jnp.concatenate([observation.agents_view, codes], axis=-1),
        global_state=jnp.concatenate([observation.global_state, code]),
    )


def episode_with_latent(episode: Trajectory, num_latents: int) -> Trajectory:
    """A trajectory within one episode whose observations show the latent that it was played by."""
    value = episode.extras.value[0]
    observations = jax.vmap(lambda observation: with_latent(observation, value, num_latents))
    return episode._replace(observation=observations(episode.observation))


# Networks


class LatentAgentNetwork(nn.Module):
    """Agents whose utilities are shaped by the latent: `Q_i = (W_0 + W(z, i)) h_i + b_0` (figure 2).

    W(z, i) is made by a linear hypernetwork of the latent and the agent's id, W_0 and b_0 are the last layer
    of `agent` and h_i its features. The hypernetwork is shared, or sees ids, if `agent` is or does.

    Args:
        agent: an `AgentNetwork` or a `RecurrentAgentNetwork`.
        num_latents: K; the last K features of every view are the latent, one-hot.
    """

    agent: nn.Module
    num_latents: int

    def setup(self) -> None:
        """The hypernetwork."""
        dense = of_all_agents(Dense, self.agent.share_parameters)
        self.shaping = dense(self.agent.num_actions * self.agent.widths[-1])

    def fresh(self, num_agents: int) -> Any:
        """The memory at an episode's start."""
        return self.agent.fresh(num_agents)

    def __call__(self, agents_view: jax.Array, *memory: Any) -> tuple[jax.Array, jax.Array]:
        """As `agent`: utilities `(n, A)` and features `(n, H)` at a view `(n, O + K)`."""
        view, codes = self._split(agents_view)
        utilities, features = self.agent(view, *memory)
        return self._shaped(utilities, features, codes), features

    def unroll(self, trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
        """The same at each of a trajectory's T + 1 observations."""
        views, codes = self._split(trajectory.observation.agents_view)
        observation = trajectory.observation._replace(agents_view=views)
        utilities, features = self.agent.unroll(trajectory._replace(observation=observation))
        return self._shaped(utilities, features, codes), features

    def _split(self, agents_view: jax.Array) -> list[jax.Array]:
        return jnp.split(agents_view, [agents_view.shape[-1] - self.num_latents], axis=-1)

    def _shaped(self, utilities: jax.Array, features: jax.Array, codes: jax.Array) -> jax.Array:
        weights = self.shaping(agent_inputs(codes, agent_ids=self.agent.agent_ids))  # (..., n, A H)
        weights = weights.reshape(*utilities.shape, features.shape[-1])
        return utilities + jnp.einsum("...ah,...h->...a", weights, features)


class Discriminator(nn.Module):
    """The logits of `q_v(z | sigma(tau))`, where sigma(tau) are the agents' softmax policies and the states.

    Args:
        num_latents: K.
        widths: hidden layers.
        aggregator: width of the GRU that reads an episode from its start to its end; 0 judges every step by
            itself.
    """

    num_latents: int
    widths: tuple[int, ...]
    aggregator: int

    @nn.compact
    def __call__(self, behaviour: jax.Array, mask: jax.Array) -> jax.Array:
        """`(T, K)`, or `(K,)` of the whole episode, from `(T, n A + S)` and `(T,)`, 0 after the end."""
        features = behaviour
        if self.aggregator:

            def step(cell: nn.Module, hidden: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> Any:
                seen, goes_on = inputs
                return jnp.where(goes_on, cell(hidden, seen)[0], hidden), None

            scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
            start = jnp.zeros((self.aggregator,), behaviour.dtype)
            features, _ = scan(
                nn.GRUCell(self.aggregator, name="aggregator_cell"), start, (behaviour, mask > 0)
            )
        return MLP(self.widths, self.num_latents)(features)


class MavenNetwork(FactoredNetwork):
    """Agents and a mixer that see the latent, the discriminator, and the policy over latents.

    Args:
        num_latents: K.
        discriminator: see `Discriminator`.
        latent_policy: `(S,)` to logits `(K,)`; None draws latents uniformly.
    """

    num_latents: int
    discriminator: nn.Module
    latent_policy: nn.Module | None

    def __call__(self, observation: Observation) -> jax.Array:
        """Touches every parameter; for initialisation, with an observation that shows no latent."""
        self.log_latents(observation)
        seen = with_latent(observation, 0, self.num_latents)
        utilities = self.utilities(seen)
        start = jax.tree.map(lambda leaf: leaf[None], observation)
        self.discriminate(utilities[None], start, jnp.ones(1))
        return self.mix(utilities, jnp.zeros(utilities.shape[0], jnp.int32), seen)

    def log_latents(self, observation: Observation) -> jax.Array:
        """Log-probabilities `(K,)` of the latents at an episode's first observation."""
        if self.latent_policy is None:
            return jnp.full((self.num_latents,), -math.log(self.num_latents))
        return jax.nn.log_softmax(self.latent_policy(observation.global_state))

    def discriminate(self, utilities: jax.Array, observations: Observation, mask: jax.Array) -> jax.Array:
        """`Discriminator`'s logits, from utilities `(T, n, A)` and observations that show no latent."""
        policies = jnp.exp(log_policy(utilities, observations.action_mask))  # (T, n, A)
        flat = policies.reshape(policies.shape[0], -1)
        return self.discriminator(jnp.concatenate([flat, observations.global_state], axis=-1), mask)  # type: ignore[no-any-return]


# The loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentFactored(Factored):
    """`L_Q - lambda_MI L_v - L_RL`, to be minimised (thesis, equation 2.80).

    L_Q is the squared TD error of a factored value that is conditioned on z (2.77, where the printed form
    lacks the square). `L_v = H(z) + E log q_v(z | sigma(tau))` is a lower bound on the mutual information of
    latent and behaviour (2.79, whose H(z | sigma(z)) is to be H(z | sigma(tau))), so that the discriminator's
    cross-entropy, which is minus its second term, is *added* to the loss; its gradient reaches the agents.
    `L_RL` is the expected return of the policy over latents (2.78), which learns by REINFORCE from the newest
    episodes.

    With `mi_reward` the bound is an auxiliary reward instead, `log q_v(z | sigma_t) - log p(z)` at every step
    (thesis, below 2.79), and the discriminator alone learns from the cross-entropy. The release adds the
    cross-entropy itself to the reward there, which is the wrong sign: it pays agents for not being told
    apart. Its entropy bonus, `-log pi(z)` of the latents drawn, has no gradient on average; here it is the
    entropy.

    Attributes:
        mixing: the mixer, which sees the latent beside the state.
        num_latents: K.
        latent_policy: "learned" by REINFORCE, or "uniform". Greedy play follows the most likely latent, or
            one that is drawn.
        latent_hidden: hidden layers of the learned policy over latents, which sees the first state. With the
            release's (128,) one step of the optimiser moves the policy so far that it settles on a latent
            while returns are still noise.
        latent_entropy: weight of its entropy beside its return.
        latent_episodes: so many of the newest episodes it learns from in one update.
        mi_coefficient: lambda_MI, weight of the discriminator's cross-entropy.
        mi_reward: weight of the auxiliary reward; 0 leaves it out.
        discriminator_hidden: hidden layers of the discriminator.
        recurrent_discriminator: whether it judges an episode as a whole, read by a GRU, or every step.
        aggregator: width of that GRU.

    Raises:
        BadInputError: for an auxiliary reward of each step by a discriminator of whole episodes.
    """

    mixing: Mixing = QMIX()
    num_latents: Annotated[int, at_least(2)] = 16
    latent_policy: Literal["learned", "uniform"] = "learned"
    latent_hidden: AnyWidths = ()
    latent_entropy: NotNegative = 1e-3
    latent_episodes: Count = 64
    mi_coefficient: NotNegative = 1.0
    mi_reward: OffOrAbove = 0.0
    discriminator_hidden: AnyWidths = (32,)
    recurrent_discriminator: bool = True
    aggregator: Count = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recurrent_discriminator and self.mi_reward:
            raise BadInputError(
                "mi_reward above 0 pays for every step: set it to 0, or recurrent_discriminator to False"
            )

    def network(self, game: GameSpec, learning: QLearner) -> MavenNetwork:
        learned = self.latent_policy == "learned"
        return MavenNetwork(
            agent=LatentAgentNetwork(learning.agents.network(game.num_actions), self.num_latents),
            mixer=self.mixing.mixer(),
            enumerate_joint=False,
            num_latents=self.num_latents,
            discriminator=Discriminator(
                self.num_latents,
                self.discriminator_hidden,
                self.aggregator if self.recurrent_discriminator else 0,
            ),
            latent_policy=MLP(self.latent_hidden, self.num_latents) if learned else None,
        )

    def loss(self, online: Any, target: Any, batch: Any, gamma: float) -> tuple[jax.Array, Metrics]:
        """Of the batches of `MAVEN.memory`."""
        learned = self.latent_policy == "learned"
        replay = batch["replay"] if learned else batch

        def of_episode(episode: Trajectory) -> Any:
            shown, value = episode_with_latent(episode, self.num_latents), episode.extras.value[0]
            utilities = online.unroll(shown)
            before = before_steps((utilities, episode.observation))
            behaviour = jax.lax.stop_gradient(before) if self.mi_reward else before
            log_q = jax.nn.log_softmax(online.discriminate(*behaviour, episode.mask))  # (T, K) or (K,)
            cross_entropy = -jnp.sum(jnp.where(jnp.arange(self.num_latents) == value, log_q, 0), axis=-1)
            if self.mi_reward:
                log_prior = online.log_latents(first_of(episode))[value]
                bonus = jax.lax.stop_gradient(-cross_entropy - log_prior)
                shown = shown._replace(reward=shown.reward + self.mi_reward * bonus)
            y = self.returns(target, utilities, target.unroll(shown), shown, gamma)
            return self.losses_towards(online, utilities, shown, y), cross_entropy

        (losses, metrics), cross_entropies = over_batch(of_episode, replay)

        def mean(values: jax.Array) -> jax.Array:
            return masked_mean(values, replay.mask)

        cross_entropy = jnp.mean(cross_entropies) if cross_entropies.ndim == 1 else mean(cross_entropies)
        loss, entropy_of_latents = (
            mean(losses) + self.mi_coefficient * cross_entropy,
            jnp.log(self.num_latents),
        )
        metrics = jax.tree.map(mean, metrics)
        if learned:
            policy_loss, entropy_of_latents = self.policy_loss(online, batch["fresh"])
            loss += policy_loss
            metrics["latent_entropy"] = entropy_of_latents
        return loss, {**metrics, "mi_bound": entropy_of_latents - cross_entropy}

    def policy_loss(self, online: Any, fresh: Trajectory) -> tuple[jax.Array, jax.Array]:
        """REINFORCE's loss `()` of the policy over latents, less its entropy's weight, and its entropy `()`.

        The newest episodes' latents were drawn by slightly older policies: they are weighed by the ratio of
        probabilities. The baseline is the batch's mean return.
        """
        log_probs = over_batch(lambda episode: online.log_latents(first_of(episode)), fresh)  # (B, K)
        values, old = fresh.extras.value[:, 0], fresh.extras.log_prob[:, 0]  # (B,)
        log_prob = jnp.take_along_axis(log_probs, values[:, None].astype(jnp.int32), axis=1)[:, 0]
        returns = jnp.sum(fresh.mask * fresh.reward, axis=1)
        weighed = jnp.exp(log_prob - old) * (returns - jnp.mean(returns))
        mean_entropy = jnp.mean(entropy(log_probs, jnp.ones_like(log_probs, bool)))
        return jnp.mean(score_loss(log_prob, weighed)) - self.latent_entropy * mean_entropy, mean_entropy


def first_of(episode: Trajectory) -> Observation:
    """The observation at an episode's start."""
    return jax.tree.map(lambda leaf: leaf[0], episode.observation)  # type: ignore[no-any-return]


# The learner


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeReplay(Replay):
    """Uniform replay of whole episodes; see `Replay`."""

    consumes: Literal["transitions", "episodes"] = "episodes"  # type: ignore[assignment]
    replay_size: Count = 5000


@dataclasses.dataclass(frozen=True, kw_only=True)
class MAVEN(QLearning):
    """Q-learning with a latent that is drawn at every episode's start; see `LatentFactored`.

    Raises:
        BadInputError: for transitions to learn from, where something learns from whole episodes.
    """

    method: LatentFactored = LatentFactored()
    replay: Replay = EpisodeReplay()
    target_period: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        learned, whole = self.method.latent_policy == "learned", self.method.recurrent_discriminator
        if (learned or whole) and self.replay.consumes != "episodes":
            raise BadInputError(
                "a learned latent_policy and a recurrent_discriminator learn from whole episodes: consume "
                "episodes, or take a uniform one and False"
            )

    def memory(self) -> Memory:
        """The replay; for a learned policy over latents its newest episodes too, as `fresh`."""
        newest = self.method.latent_episodes
        if self.method.latent_policy == "uniform":
            return self.replay.memory()
        return Together(replay=self.replay.memory(), fresh=Episodes(newest, newest))

    def utilities(self, game: GameSpec, params: Params, observation: Observation) -> jax.Array:
        """Those of the most likely latent; of the first one, if latents are drawn uniformly."""
        return super().utilities(game, params, self._at_best(game, params, observation))

    def joint_values(
        self, game: GameSpec, params: Params, observation: Observation, actions: jax.Array
    ) -> Metrics:
        """`q_tot` of the latent of `utilities`."""
        return super().joint_values(game, params, self._at_best(game, params, observation), actions)

    def _at_best(self, game: GameSpec, params: Params, observation: Observation) -> Observation:
        network: Any = self.network(game).bind(params)
        return with_latent(observation, jnp.argmax(network.log_latents(observation)), self.method.num_latents)

    def acting(self, game: GameSpec) -> tuple[Begin, Act, ActGreedily]:
        """As for all Q-learners, by a latent that `begin` draws."""
        (begin_agents, act_by, act_greedily_by), module = super().acting(game), self.network(game)
        num_latents, learned = self.method.num_latents, self.method.latent_policy == "learned"
        kind = compact_dtype(num_latents - 1)

        def begin(params: Params, observation: Observation, key: jax.Array) -> Commitment:
            latent_key, agents_key = jax.random.split(key)
            network: Any = module.bind(params)
            log_probs = network.log_latents(observation)  # (K,)
            value = jax.random.categorical(latent_key, log_probs)
            best = jnp.argmax(log_probs) if learned else value
            latent = Latent(value.astype(kind), log_probs[value])
            return Commitment(latent, best.astype(kind), begin_agents(params, observation, agents_key))

        def act(
            params: Params, carry: Commitment, observation: Observation, clock: Clock, key: jax.Array
        ) -> Decision:
            seen = with_latent(observation, carry.latent.value, num_latents)
            actions, memory, _ = act_by(params, carry.memory, seen, clock, key)
            return Decision(actions, carry._replace(memory=memory), carry.latent)

        def act_greedily(
            params: Params, carry: Commitment, observation: Observation, key: jax.Array
        ) -> Decision:
            seen = with_latent(observation, carry.best, num_latents)
            actions, memory, _ = act_greedily_by(params, carry.memory, seen, key)
            return Decision(actions, carry._replace(memory=memory))

        return begin, act, act_greedily
