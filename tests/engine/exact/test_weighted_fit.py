"""Additive fits with any weights of the joint actions, against least squares."""

import numpy as np
import pytest

from envs.errors import BadInputError
from jaxmarl_fac.exact.projections import additive_fit, weighted_additive_fit

pytestmark = pytest.mark.usefixtures("float64")


def least_squares(payoff, p):
    """The additive fit by NumPy."""
    joints = np.indices(payoff.shape).reshape(payoff.ndim, -1)
    used = np.concatenate([np.eye(n)[own] for n, own in zip(payoff.shape, joints, strict=True)], axis=1)
    root = np.sqrt(p.ravel())
    solution = np.linalg.lstsq(used * root[:, None], payoff.ravel() * root, rcond=None)[0]
    return (used @ solution).reshape(payoff.shape)


@pytest.mark.parametrize("shape", [(2, 2), (3, 2, 2)])
def test_the_weighted_additive_fit_by_least_squares(shape):
    draw = np.random.default_rng(len(shape))
    payoff, p = draw.normal(size=shape), draw.dirichlet(np.ones(np.prod(shape))).reshape(shape)
    fit = weighted_additive_fit(payoff, p)
    np.testing.assert_allclose(fit.q_tot, least_squares(payoff, p), atol=1e-9)
    np.testing.assert_allclose(weighted_additive_fit(payoff, 3 * p).q_tot, fit.q_tot, atol=1e-9)
    assert [len(utility) for utility in fit.utilities] == list(shape)
    uniform = weighted_additive_fit(payoff, np.ones(shape)).q_tot
    np.testing.assert_allclose(uniform, additive_fit(payoff).q_tot, atol=1e-12)


@pytest.mark.parametrize("bad", [np.ones((2, 3)), np.asarray([[1.0, 1], [0, 1]])])
def test_weights_that_do_not_fit(bad):
    with pytest.raises(BadInputError, match="give one positive number for each joint action"):
        weighted_additive_fit(np.zeros((2, 2)), bad)
