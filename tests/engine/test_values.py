import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxmarl_fac.values import UNAVAILABLE, chosen, greedy_actions, mask_unavailable, masked_mean

# Choosing. Subnormal numbers are left out: XLA's sum flushes them to zero, where its gather copies them.


@settings(max_examples=30, deadline=None)
@given(
    utilities=arrays(np.float32, (4, 5), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False)),
    actions=arrays(np.int32, (4,), elements=st.integers(0, 4)),
)
def test_chosen_is_a_gather_and_so_is_its_gradient(utilities, actions):
    def gathered(utilities):
        return jnp.take_along_axis(utilities, actions[:, None], axis=1)[:, 0]

    np.testing.assert_array_equal(chosen(utilities, actions), gathered(utilities))
    weights = jnp.arange(1.0, 5)
    by_sum = jax.grad(lambda q: jnp.sum(weights * chosen(q, actions)))(utilities)
    by_gather = jax.grad(lambda q: jnp.sum(weights * gathered(q)))(utilities)
    np.testing.assert_array_equal(by_sum, by_gather)


def test_chosen_ignores_what_was_not_chosen_even_if_not_finite():
    utilities = jnp.asarray([[jnp.inf, 1, jnp.nan], [2, -jnp.inf, UNAVAILABLE]])
    np.testing.assert_array_equal(chosen(utilities, jnp.asarray([1, 0])), [1, 2])


def test_chosen_over_batches():
    utilities = jnp.arange(24.0).reshape(2, 3, 4)
    actions = jnp.asarray([[0, 1, 2], [3, 2, 1]])
    np.testing.assert_array_equal(jax.vmap(chosen)(utilities, actions), [[0, 5, 10], [15, 18, 21]])


def test_masked_actions_are_never_greedy():
    utilities = jnp.asarray([[5.0, 1, 3], [-7e8, -8e8, 0]])
    mask = jnp.asarray([[False, True, True], [True, True, False]])
    masked = mask_unavailable(utilities, mask)
    np.testing.assert_array_equal(masked, [[-1e9, 1, 3], [-7e8, -8e8, -1e9]])
    assert greedy_actions(masked).tolist() == [2, 0]


def test_ties_go_to_the_lowest_index():
    utilities = jnp.asarray([[1.0, 1, 1], [0, 2, 2], [-1, -1, -2]])
    assert greedy_actions(utilities).tolist() == [0, 1, 0]


def test_nan_plays_an_action_that_exists():
    utilities = jnp.asarray([[1.0, jnp.nan, 3], [jnp.nan, jnp.nan, jnp.nan], [-jnp.inf, -jnp.inf, -jnp.inf]])
    assert greedy_actions(utilities).tolist() == [0, 0, 0]


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, (4, 5), elements=st.sampled_from([-np.inf, -1e9, -1.0, 0.0, 0.5, 2.0, np.inf])))
def test_greedy_actions_are_those_of_argmax(utilities):
    assert greedy_actions(jnp.asarray(utilities)).tolist() == utilities.argmax(axis=1).tolist()


def test_masked_mean():
    values = jnp.asarray([[1.0, 2, jnp.float32(1e9)], [4, 5, 6]])
    mask = jnp.asarray([[1.0, 1, 0], [1, 0, 0]])
    assert float(masked_mean(values, mask)) == pytest.approx(7 / 3)
