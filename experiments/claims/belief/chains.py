"""What the figures filter: four games, in increasing size, with what was observed in them."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import envs
from jaxmarl_fac.soft import belief
from jaxmarl_fac.soft.belief import Chain

#: A partial policy of the card game, by card: the chances of the actions.
SOFT_POLICY = ((0.7, 0.2, 0.1), (0.1, 0.2, 0.7))
#: How two agents act who have heard nothing, left or right: with chance .3 they open the other door.
TIGER_POLICY = ((1.0, 0.0, 0.0), (0.7, 0.0, 0.3), (0.7, 0.3, 0.0))
WEATHER, CARDS, TIGER, TWO_TIGERS = "hidden chain", "private cards", "tiger", "two-agent tiger"


class Hidden(NamedTuple):
    """A chain, and what is asked about it."""

    chain: Chain  # of X states
    asked: np.ndarray  # (X, M), one-hot: which of M things each state is


def hidden() -> dict[str, Hidden]:
    """The games by name; inside `jax.enable_x64(True)` in float64."""
    return {WEATHER: weather(), CARDS: cards(), TIGER: tiger(), TWO_TIGERS: two_tigers()}


def weather() -> Hidden:
    """The hidden chain that shows 1, 1 and 0, and in which of its two states it is."""
    model = envs.make("hmm").hidden_model()  # type: ignore[attr-defined]
    guesses, signs = jnp.zeros((2, 1), int), jnp.asarray([[1], [1], [0]])
    return Hidden(belief.chain_of(model, guesses, jnp.zeros(3, int), signs), np.eye(2))


def tiger(heard: tuple[int, ...] = (1, 1, 2)) -> Hidden:
    """The tiger that was heard on the left (1) or right (2), and where it is."""
    model = envs.make("tiger").hidden_model()  # type: ignore[attr-defined]
    signs = jnp.asarray([0, *heard])[:, None]
    steps = len(heard)
    return Hidden(
        belief.chain_of(model, jnp.zeros((steps, 1), int), jnp.zeros(steps + 1, int), signs), np.eye(2)
    )


def cards() -> Hidden:
    """The card game after player 1's action 1 under `SOFT_POLICY`, and which card it holds."""
    model = envs.make("private-cards").hidden_model()  # type: ignore[attr-defined]
    policies = (jnp.asarray([SOFT_POLICY], float), jnp.ones((1, 2, 3)))
    chain = belief.public_chain_of(model, policies, jnp.asarray([[0, 0]]), jnp.asarray([0]))
    return Hidden(chain, np.tile(np.repeat(np.eye(2), 2, axis=0), (17, 1)))


def two_tigers() -> Hidden:
    """Both have listened, then 2 opened the right door, and where the tiger was, by the actions alone."""
    model = envs.make("two-agent-tiger").hidden_model()  # type: ignore[attr-defined]
    policy = jnp.broadcast_to(jnp.asarray(TIGER_POLICY, float), (2, 3, 3))
    actions, public = jnp.asarray([[0, 0], [0, 2]]), jnp.asarray([0, 1])
    chain = belief.public_chain_of(model, (policy, policy), actions, public)
    return Hidden(chain, np.repeat(np.eye(2), 9, axis=0))
