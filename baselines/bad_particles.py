"""The probabilistic public agent: a public belief by K particles, weighted by what the players do.

(Thesis, section 5.3.) A particle is a state with all private observations. At every step ancestors are drawn
by the weights, each moves by the game's own tables, and is weighed by

    w = P(a | o, m) P(o_pub' | s', a),

which is the weight of equation 5.24 with these corrections: P(O|r) does not enter, since the agents' rewards
are the return that the public agent climbs; the proposal is the transition with the private observations
(a bootstrap filter), so that they cancel; and the weights of all steps count, not the last one's. The message
m is what the public agent draws by the public seed, a partial policy, with the entropy of equation 5.25; the
players follow it up to a tremble, P(a | o, m). The tables are given, so that the evidence has nothing to
train.

The public agent sees the weighted mean of the particles' features. Equation 5.21 averages the policies of
particles instead, but such a policy cannot tell what is certain from what is not.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from baselines.bad import PublicBelief, PublicView, Told, public_features, tables
from envs.team_mdp import sample_index
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.settings import Count
from jaxmarl_fac.soft.particles import Moved, Particles, advance, start


class Hypothesis(NamedTuple):
    """What is hidden, as one particle supposes."""

    state: jax.Array  # () int32, s
    private: jax.Array  # (n,) int32, o_1, ..., o_n


class ParticleMemory(NamedTuple):
    """Particles at the last public observation, and what the players have done since."""

    particles: Particles  # (K, ...) of `Hypothesis`
    told: Told
    seed: jax.Array  # () uint32, of all draws to come; everybody knows it


class Surroundings(NamedTuple):
    """What all particles of one step share."""

    transition: jax.Array  # (S, S); at the start its rows are the first state's chances
    private: jax.Array  # (n, S, O)
    shown: jax.Array  # (S,), the chance of the public observation
    told: Told


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParticleBelief(PublicBelief):
    """A particle filter of the state and the private observations.

    Attributes:
        particles: K.
    """

    particles: Count = 32

    def fresh(self, game: GameSpec, seed: jax.Array) -> ParticleMemory:
        nothing = Hypothesis(jnp.zeros((), jnp.int32), jnp.zeros((game.num_agents,), jnp.int32))
        shape = (game.num_agents, game.num_private, game.num_actions)
        told = Told(jnp.ones(shape, jnp.float32), jnp.full((game.num_agents,), -1, jnp.int32))
        return ParticleMemory(start(nothing, self.particles), told, seed)

    def see(
        self, game: GameSpec, memory: ParticleMemory, public_view: jax.Array
    ) -> tuple[ParticleMemory, PublicView]:
        model, first = tables(game), memory.told.actions[0] < 0
        cell = tuple(jnp.maximum(memory.told.actions, 0))
        shown = jnp.where(first, model.first_public, model.public[cell])
        around = Surroundings(
            jnp.where(first, model.start, model.transition[(slice(None), *cell)]),
            jnp.where(first, model.first_private, model.private[(slice(None), *cell)]),
            shown[:, jnp.argmax(public_view)],
            memory.told,
        )
        particles, _ = advance(memory.particles, jax.random.key(memory.seed), extend, around)
        weights = jnp.exp(particles.log_weight)  # (K,)
        states = weights @ jax.nn.one_hot(particles.state.state, game.state_size)
        held = jnp.einsum("k,kno->no", weights, jax.nn.one_hot(particles.state.private, game.num_private))
        return memory._replace(particles=particles), public_features(public_view, held, states)

    def tell(self, game: GameSpec, memory: ParticleMemory, told: Told) -> ParticleMemory:
        later = jax.random.bits(jax.random.fold_in(jax.random.key(memory.seed), 1), (), jnp.uint32)
        return ParticleMemory(memory.particles, told, later)

    def seed(self, memory: ParticleMemory) -> Any:
        return memory.seed


def extend(key: jax.Array, state: Hypothesis, inputs: Surroundings) -> Moved:
    """Move one particle by the game's tables, and weigh what its players did and what all see."""
    before, around = state, inputs
    agents = jnp.arange(before.private.shape[0])
    uniform = jax.random.uniform(key, (1 + agents.shape[0],))
    moved = sample_index(around.transition[before.state], uniform[0]).astype(jnp.int32)
    private = jax.vmap(sample_index)(around.private[:, moved], uniform[1:]).astype(jnp.int32)
    actions = around.told.actions
    chances = around.told.policies[agents, before.private, jnp.maximum(actions, 0)]  # (n,)
    chance = jnp.where(actions[0] < 0, 1, jnp.prod(chances)) * around.shown[moved]
    return Moved(Hypothesis(moved, private), jnp.log(chance), jnp.zeros(()))
