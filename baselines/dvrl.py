"""Deep variational reinforcement learning: actor-critics that filter what they see by learned particles.

(Igl et al., 2018, "Deep variational reinforcement learning for POMDPs", arXiv 1806.02426; thesis, section
5.2.2.) A recurrent agent squeezes its past into one vector. Here each agent keeps K particles (h, z, w),
hypotheses of what it cannot see, and moves them by variational sequential Monte Carlo (`soft/particles`) with
a proposal, a transition model and a model of its views that are networks (equation 5.4, whose transition
model lacks the last action). It acts by all of them: by a second RNN that reads one particle after the other,
or by the average of the policies that each particle suggests (5.6). The bound on the evidence that the filter
gives (5.5) and the actor-critic's loss are learned together, through the same particles.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from baselines.policies import Play, log_policies
from baselines.policy_gradient import IndependentValues, PolicyGradient, PolicyNetwork
from envs.base import Observation
from envs.lazy import lazily
from envs.memory import check_fits
from jaxmarl_fac.algorithm import Learner, Params
from jaxmarl_fac.experience import Clock, Decision, Trajectory
from jaxmarl_fac.exploration import sample_actions
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.memory.packing import tree_bytes
from jaxmarl_fac.networks import LOG_SCALES, MLP, NO_ACTION, agent_inputs, concat
from jaxmarl_fac.policy_gradients import log_policy
from jaxmarl_fac.products import Dense
from jaxmarl_fac.settings import Count, NotNegative, Probability, Settings, Widths
from jaxmarl_fac.soft.particles import Moved, Particles, advance, start
from jaxmarl_fac.values import greedy_actions, mask_unavailable

if TYPE_CHECKING:
    import distrax
else:
    distrax = lazily("distrax")

# Networks


class Hypothesis(NamedTuple):
    """The state of a particle."""

    hidden: jax.Array  # (H,), h: all that the particle remembers
    latent: jax.Array  # (Z,), z: what it has just guessed


class Sight(NamedTuple):
    """What an agent learns at one step."""

    view: jax.Array  # (O,)
    context: jax.Array  # (C,), its last action and, if asked, its id, one-hot


class BeliefMemory(NamedTuple):
    """What agents remember within an episode."""

    particles: Particles  # of each agent, (n, K, ...)
    last_actions: jax.Array  # (n,) int32, `NO_ACTION` at the episode's start


class ParticleAgent(nn.Module):
    """One agent's model of the world, for one particle, and its policy and value, for all of them.

    Args:
        num_actions: A.
        view_size: O.
        one_hot_views: whether the views' model is a categorical distribution; else it is normal, with
            variance 1.
        widths: of the hidden layers; both RNNs are as wide as the last of them.
        latent_size: Z.
        readout: see `ParticleAgents`.
    """

    num_actions: int
    view_size: int
    one_hot_views: bool
    widths: tuple[int, ...]
    latent_size: int
    readout: str

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.transition = MLP(self.widths, 2 * self.latent_size)
        self.proposal = MLP(self.widths, 2 * self.latent_size)
        self.decoder = MLP(self.widths, self.view_size)
        self.cell = nn.GRUCell(self.widths[-1])
        if self.readout == "rnn":
            self.reader = nn.RNN(nn.GRUCell(self.widths[-1]))
        self.head = Dense(self.num_actions + 1)

    def __call__(self, key: jax.Array, sight: Sight, mask: jax.Array) -> jax.Array:
        """`outputs` of a single fresh particle; touches every parameter."""
        moved = self.extend(key, self.fresh(), sight)
        particles = start(moved.state, 1, jnp.float32)
        return self.outputs(particles, moved.log_weight, mask)

    def fresh(self) -> Hypothesis:
        """A particle at an episode's start."""
        return Hypothesis(jnp.zeros(self.widths[-1], jnp.float32), jnp.zeros(self.latent_size, jnp.float32))

    def extend(self, key: jax.Array, state: Hypothesis, sight: Sight) -> Moved:
        """Draw z from `q(z|h, a, o)`, weigh it by `p(z|h, a) p(o|h, z, a) / q(z|h, a, o)`, and move h.

        The draw is reparametrised, so that the gradient reaches the proposal.
        """
        hidden, (view, context) = state.hidden, sight
        prior = normal(self.transition(concat(hidden, context)))
        proposal = normal(self.proposal(concat(hidden, context, view)))
        latent = proposal.sample(seed=key)
        predicted = self.decoder(concat(hidden, latent, context))
        if self.one_hot_views:
            log_view = jnp.sum(view * nn.log_softmax(predicted))
        else:
            log_view = jnp.sum(distrax.Normal(predicted, 1.0).log_prob(view))
        log_weight = prior.log_prob(latent) + log_view - proposal.log_prob(latent)
        hidden, _ = self.cell(hidden, concat(latent, context, view))
        return Moved(Hypothesis(hidden, latent), log_weight, jnp.zeros_like(log_weight))

    def outputs(self, particles: Particles, log_evidence: jax.Array, mask: jax.Array) -> jax.Array:
        """Logits `(A,)`, the evidence of the latest view and the value, `(A + 2,)` in this order.

        Args:
            particles: K of them.
            log_evidence: `()`, see `particles.Step`.
            mask: `(A,)`, which actions are available.
        """
        (hidden, latent), log_weight = particles
        weight = jnp.exp(log_weight)
        if self.readout == "rnn":
            shares = weight[:, None] * weight.shape[0]  # around 1, however many there are
            read = self.reader(jnp.concatenate([hidden, latent, shares], axis=-1))[-1]
            logits, value = jnp.split(self.head(read), [self.num_actions])
        else:
            each = self.head(hidden)  # (K, A + 1)
            masks = jnp.broadcast_to(mask, (each.shape[0], self.num_actions))
            logs = log_policy(each[:, : self.num_actions], masks)
            logits, value = logsumexp(log_weight[:, None] + logs, axis=0), weight @ each[:, -1]
        return concat(logits, log_evidence, value)


def normal(parameters: jax.Array) -> "distrax.MultivariateNormalDiag":
    """The normal distribution of Z independent numbers with a mean and a log-scale each, `(2 Z,)`."""
    mean, log_scale = jnp.split(parameters, 2)
    return distrax.MultivariateNormalDiag(mean, jnp.exp(jnp.clip(log_scale, *LOG_SCALES)))


class BeliefNetwork(PolicyNetwork):
    """Agents that share a `ParticleAgent`, each with particles of its own, and a critic.

    Args:
        agent: see `PolicyNetwork`.
        critic: see `PolicyNetwork`.
        particles: K.
        resampling: see `ParticleAgents`.
        agent_ids: see `ParticleAgents`.
    """

    particles: int
    resampling: bool
    agent_ids: bool

    def fresh(self, num_agents: int) -> BeliefMemory:
        """The memory at an episode's start."""
        particles = start(self.agent.fresh(), self.particles, jnp.float32)
        spread = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_agents, *leaf.shape)), particles)
        return BeliefMemory(spread, jnp.full((num_agents,), NO_ACTION, jnp.int32))

    def utilities(self, observation: Observation) -> jax.Array:
        """Those of agents with a single particle at an episode's start; for initialisation."""
        n = observation.agents_view.shape[0]
        sights = self._sights(observation.agents_view, jnp.full((n,), NO_ACTION, jnp.int32))
        first = jax.tree.map(lambda leaf: leaf[0], (sights, observation.action_mask))
        outputs = self.agent(jax.random.key(0), *first)
        return jnp.broadcast_to(outputs, (n, *outputs.shape))

    def see(
        self, memory: BeliefMemory, observation: Observation, key: jax.Array
    ) -> tuple[jax.Array, Particles]:
        """Outputs `(n, A + 2)` at an observation, and the agents' particles after it."""
        agent = self._agent()
        sights = self._sights(observation.agents_view, memory.last_actions)
        particles, evidence = self._filter(agent, memory.particles, sights, key)
        outputs = jax.vmap(functools.partial(agent, "outputs"))
        return outputs(particles, evidence, observation.action_mask), particles

    def unroll(self, trajectory: Trajectory) -> jax.Array:
        """Outputs `(T + 1, n, A + 2)`, with the draws by which the agents have acted, if they are stored."""
        agent, views, first = self._agent(), trajectory.observation.agents_view, trajectory.first
        fresh = self.fresh(views.shape[1])
        memory = trajectory.carry or fresh
        taken = jnp.concatenate([memory.last_actions[None], trajectory.actions])
        sights = self._sights(views, jnp.where(first[:, None], NO_ACTION, taken))
        keys = jax.random.wrap_key_data(trajectory.extras)  # (T,)
        keys = jnp.concatenate([keys, jax.random.split(keys[-1], 1)])

        def step(particles: Particles, inputs: Any) -> Any:
            first, sights, key = inputs
            restarted = jax.tree.map(lambda new, old: jnp.where(first, new, old), fresh.particles, particles)
            particles, evidence = self._filter(agent, restarted, sights, key)
            return particles, (particles, evidence)

        # Only the particles take one step after the other: the rest is done for all of them at once.
        _, found = jax.lax.scan(step, memory.particles, (first, sights, keys))
        outputs = jax.vmap(jax.vmap(functools.partial(agent, "outputs")))
        return outputs(*found, trajectory.observation.action_mask)  # type: ignore[no-any-return]

    def _sights(self, views: jax.Array, last_actions: jax.Array) -> Sight:
        """Of views `(..., n, O)` and last actions `(..., n)`."""
        actions = jax.nn.one_hot(last_actions, self.agent.num_actions, dtype=views.dtype)
        return Sight(views, agent_inputs(actions, agent_ids=self.agent_ids))

    def _agent(self) -> Callable[..., Any]:
        """The agent as a function of a method's name and arguments, for JAX's own `vmap` and `scan`."""
        agent, variables = self.agent.unbind()
        return lambda method, *inputs: agent.apply(variables, *inputs, method=method)

    def _filter(
        self, agent: Callable[..., Any], particles: Particles, sights: Sight, key: jax.Array
    ) -> tuple[Particles, jax.Array]:
        """One step of each agent's filter: particles `(n, K, ...)`, and the evidence `(n,)` of its view."""

        def of_one(particles: Particles, sight: Sight, key: jax.Array) -> tuple[Particles, jax.Array]:
            extend = functools.partial(agent, "extend")
            particles, told = advance(particles, key, extend, sight, resampling=self.resampling)
            return particles, told.log_evidence

        keys = jax.random.split(key, sights.view.shape[0])
        return jax.vmap(of_one)(particles, sights, keys)


# The learner


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParticleAgents(Settings):
    """The agents' networks, which they share, and their particles.

    Attributes:
        hidden: widths of the hidden layers of all networks; both RNNs are as wide as the last of them.
        latent_size: numbers in a particle's latent z.
        particles: K, of each agent.
        resampling: whether particles are drawn anew by their weights before each step (thesis, 5.4). No
            gradient passes through that. Without, weights accumulate within an episode.
        readout: by what the agent acts: an "rnn" that reads its particles (Igl et al.), or the "average" of
            the policies and values of each (thesis, 5.6).
        agent_ids: whether agents see a one-hot id.
    """

    hidden: Widths = (64,)
    latent_size: Count = 32
    particles: Count = 10
    resampling: bool = True
    readout: Literal["rnn", "average"] = "rnn"
    agent_ids: bool = True

    def network(self, game: GameSpec) -> ParticleAgent:
        """Of each agent."""
        return ParticleAgent(
            game.num_actions, game.view_size, game.one_hot_views, self.hidden, self.latent_size, self.readout
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElboValues(IndependentValues):
    """A2C, and minus the bound on the log-likelihood of what the agents see (thesis, 5.5), per step.

    Attributes:
        elbo_coefficient: weight of the bound; 0 leaves the model to the actor-critic's loss.
    """

    extra_outputs = 2
    td_lambda: Probability = 1.0
    elbo_coefficient: NotNegative = 1.0

    def model_loss(self, outputs: jax.Array) -> jax.Array:
        return -self.elbo_coefficient * jnp.sum(outputs[..., -2], axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DVRL(PolicyGradient):
    """Advantage actor-critic on particles; see the module. Gradients reach back to a rollout's start.

    The draws of the particles that have acted are made again from their keys when the agents learn. The
    authors' release has widths and latents of 256, and RMSprop with a step size of 3e-4 on 16 environments.
    """

    method: ElboValues = ElboValues()
    agents: ParticleAgents = ParticleAgents()  # type: ignore[assignment]
    rollout_length: Count | None = 5

    def network(self, game: GameSpec) -> BeliefNetwork:
        agents = self.agents
        return BeliefNetwork(
            agent=agents.network(game),
            critic=self.method.critic(game),
            particles=agents.particles,
            resampling=agents.resampling,
            agent_ids=agents.agent_ids,
        )

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        """See `Algorithm.bind`.

        Raises:
            BadInputError: also for more particles than fit into memory.
        """
        particles = jax.eval_shape(functools.partial(self.network(game).fresh, game.num_agents))
        rows = (self.rollout_length or game.time_limit + 1) + 1
        what = f"{self.agents.particles:,} particles at {rows:,} steps of {num_envs:,} environment(s)"
        check_fits(rows * num_envs * tree_bytes(particles), what)
        return super().bind(game, num_envs)

    def acting(self, game: GameSpec) -> Play:
        module = self.network(game)

        def begin(params: Params, observation: Observation, key: jax.Array) -> BeliefMemory:
            return module.fresh(game.num_agents)

        def act(
            params: Params, carry: BeliefMemory, observation: Observation, clock: Clock, key: jax.Array
        ) -> Decision:
            filter_key, action_key = jax.random.split(key)
            outputs, particles = module.bind(params).see(carry, observation, filter_key)
            actions = sample_actions(action_key, jnp.exp(log_policies(outputs, observation.action_mask)))
            return Decision(actions, BeliefMemory(particles, actions), jax.random.key_data(filter_key))

        def act_greedily(
            params: Params, carry: BeliefMemory, observation: Observation, key: jax.Array
        ) -> Decision:
            outputs, particles = module.bind(params).see(carry, observation, key)
            logits = outputs[:, : game.num_actions]
            actions = greedy_actions(mask_unavailable(logits, observation.action_mask))
            return Decision(actions, BeliefMemory(particles, actions))

        return Play(begin, act, act_greedily)
