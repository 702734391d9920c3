import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmarl_fac.exact.friends_and_foes import correlated_friends, foes_bound, independent_friends
from tests.helpers import but_slow
from tests.reference.equilibria import max_min_value

pytestmark = pytest.mark.usefixtures("float64")

#: 4 where all three do the same, else 0.
ALIKE = np.zeros((2, 2, 2))
ALIKE[0, 0, 0] = ALIKE[1, 1, 1] = 4


@functools.partial(jax.jit, static_argnames="friends")
def solved(stages, friends):
    """Of a batch: independent friends, correlated friends, and what foes can hold them to."""
    both = (independent_friends, correlated_friends, foes_bound)
    return tuple(jax.vmap(lambda stage, each=each: each(stage, friends))(stages) for each in both)


def test_friends_who_correlate_get_twice_as_much():
    """Players 1 and 2 against 3: 1 if they mix independently, as the thesis prints, 2 if they correlate."""
    apart, together, bound = solved(ALIKE[None], (0, 1))
    assert float(apart.value[0]) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(apart.policy[0], np.full((2, 2), 0.25), atol=1e-12)
    assert float(together.value[0]) == pytest.approx(2, abs=1e-12)
    np.testing.assert_allclose(together.policy[0], np.diag([0.5, 0.5]), atol=1e-12)
    assert float(bound[0]) == pytest.approx(2, abs=1e-12)


@pytest.mark.parametrize("foes", but_slow([1, 2, 4], quick=[2]))
def test_independent_friends_are_best_on_a_grid(foes):
    """No point of a grid is better, and a fine grid comes close."""
    stages = np.random.default_rng(foes).normal(size=(60, 2, 2, foes))
    line = np.linspace(0, 1, 201)
    own = np.stack([1 - line, line])  # (2, P)
    found = jax.jit(jax.vmap(lambda stage: independent_friends(stage, (0, 1))))(stages)
    payoffs = np.einsum("gijk,ip,jq->gpqk", stages, own, own)
    best = payoffs.min(-1).max((1, 2))
    assert (found.value >= best - 1e-12).all()
    np.testing.assert_allclose(found.value, best, atol=0.02)
    held = np.einsum("gij,gijk->gk", found.policy, stages).min(1)
    np.testing.assert_allclose(found.value, held, atol=1e-12)


def test_stages_that_are_degenerate():
    """Constant payoffs, equal foes, and surfaces that are flat along an axis."""
    stages = np.stack(
        [
            np.full((2, 2, 2), 3.0),
            np.stack([[[1.0, 2], [3, 4]]] * 2, axis=-1),
            np.stack([[[0.0, 0], [2, 2]], [[1.0, 1], [0, 0]]], axis=-1),  # player 1 alone matters
            np.stack([[[0.0, 2], [0, 2]], [[1.0, 0], [1, 0]]], axis=-1),  # player 2 alone
        ]
    )
    np.testing.assert_allclose(solved(stages, (0, 1))[0].value, [3, 4, 2 / 3, 2 / 3], atol=1e-12)


def test_friends_are_a_linear_program_if_they_correlate_or_are_one():
    stages = np.random.default_rng(7).normal(size=(10, 2, 3, 2))
    two = jax.jit(jax.vmap(lambda stage: correlated_friends(stage, (0, 2)).value))(stages)
    alone = jax.jit(jax.vmap(lambda stage: independent_friends(stage, (1,)).value))(stages)
    bound = jax.jit(jax.vmap(lambda stage: foes_bound(stage, (0, 2))))(stages)
    for index, stage in enumerate(stages):
        value = max_min_value(np.moveaxis(stage, 2, 1).reshape(4, 3))  # players 0 and 2 against 1
        assert float(two[index]) == pytest.approx(value, abs=1e-8)
        assert float(bound[index]) == pytest.approx(value, abs=1e-8)
        assert float(alone[index]) == pytest.approx(
            max_min_value(np.moveaxis(stage, 1, 0).reshape(3, 4)), abs=1e-8
        )


def test_all_friends_take_the_maximum():
    stage = jnp.asarray(np.random.default_rng(1).normal(size=(2, 2, 3)))
    assert float(jax.jit(correlated_friends, static_argnums=1)(stage, (0, 1, 2)).value) == pytest.approx(
        float(stage.max()), abs=1e-12
    )


@pytest.mark.parametrize(
    ("stage", "friends", "says"),
    [
        ((2, 2, 2), (), "friends must be some of the players 0 to 2"),
        ((2, 2, 2), (1, 0), "in ascending order, not (1, 0)"),
        ((2, 2, 2), (0, 3), "players 0 to 2"),
        ((2, 2, 2, 2), (0, 1, 2), "exact for two friends with two actions each, and these have 2x2x2"),
        ((2, 3, 2), (0, 1), "and these have 2x3: use `correlated_friends`"),
    ],
)
def test_what_is_refused(bad_input, stage, friends, says):
    with bad_input(says):
        independent_friends(jnp.zeros(stage), friends)


def test_correlated_friends_say_how_far_they_go(bad_input):
    with bad_input("is too large to enumerate its equilibria: use at most 6x6"):
        correlated_friends(jnp.zeros((3, 3, 3, 3)), (0, 1))
