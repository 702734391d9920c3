import jax
import jax.numpy as jnp
import numpy as np
import pytest

from baselines import equilibrium_q
from tests.engine.exact.test_equilibria import PENNIES, THESIS

pytestmark = pytest.mark.usefixtures("float64")


# Q-learning.


def test_nash_q_moves_both_tables_towards_the_selected_equilibrium():
    # In state 1 both players see matching pennies, worth 0, plus what is added to everything.
    q = np.zeros((2, 2, 2, 2))
    q[0, 1], q[1, 1] = PENNIES + 4, -PENNIES + 6
    q[0, 0, 0, 1] = 10
    ours = jax.jit(equilibrium_q.nash_q_update)(
        jnp.asarray(q), 0, jnp.array([0, 1]), jnp.array([1.0, 2.0]), 1, 1.0, 0.5, 0.25
    )
    expected = q.copy()
    expected[0, 0, 0, 1] = 0.75 * 10 + 0.25 * (1 + 0.5 * 4)
    expected[1, 0, 0, 1] = 0.25 * (2 + 0.5 * 6)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    # Nothing follows a termination.
    over = jax.jit(equilibrium_q.nash_q_update)(
        jnp.asarray(q), 0, jnp.array([1, 1]), jnp.array([1.0, 2.0]), 1, 0.0, 0.5, 1.0
    )
    np.testing.assert_allclose(over[:, 0, 1, 1], [1, 2], rtol=1e-12)


def test_nash_q_solves_a_game_of_two_stages():
    # State 0 leads to state 1, where the thesis's game is played for the sum 0; worth (2, -2) there.
    update = jax.jit(equilibrium_q.nash_q_update)
    q = jnp.zeros((2, 2, 3, 3))
    for _ in range(2):
        for a in range(3):
            for b in range(3):
                actions = jnp.array([a, b])
                rewards = jnp.array([THESIS[a, b], -THESIS[a, b]])
                q = update(q, 1, actions, rewards, 1, 0.0, 0.9, 1.0)
                q = update(q, 0, actions, jnp.zeros(2), 1, 1.0, 0.9, 1.0)
    np.testing.assert_allclose(q[0, 1], THESIS, rtol=1e-12)
    np.testing.assert_allclose(q[:, 0], np.broadcast_to(np.array([1.8, -1.8])[:, None, None], (2, 3, 3)))


@pytest.mark.parametrize(("foe", "following"), [(True, 2.0), (False, 10.0)])
def test_friend_or_foe_q(foe, following):
    q = np.zeros((2, 3, 3))
    q[1] = THESIS
    update = jax.jit(equilibrium_q.friend_or_foe_q_update, static_argnames="foe")
    ours = update(jnp.asarray(q), 0, jnp.array([1, 2]), 3.0, 1, 1.0, 0.9, 0.5, foe=foe)
    expected = q.copy()
    expected[0, 1, 2] = 0.5 * (3 + 0.9 * following)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    over = update(jnp.asarray(q), 0, jnp.array([1, 2]), 3.0, 1, 0.0, 0.9, 1.0, foe=foe)
    np.testing.assert_allclose(over[0, 1, 2], 3, rtol=1e-12)
