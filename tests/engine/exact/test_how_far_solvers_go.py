import jax.numpy as jnp
import numpy as np
import pytest

from envs.errors import BadInputError
from jaxmarl_fac.exact.equilibria import max_min, nash_equilibrium, support_enumeration
from jaxmarl_fac.exact.factorization import tight_utilities, tighten
from jaxmarl_fac.exact.projections import monotone_fit
from tests.helpers import but_slow

DRAW = np.random.default_rng(0)
#: More players or actions than a solver can do exactly, and what it can.
BEYOND = {
    "(7), joint actions": (
        lambda: tight_utilities(DRAW.random((5, 5, 5))),
        "125 joint actions .* at most 100",
    ),
    "B.4.1, agents": (lambda: tighten((jnp.zeros(2),) * 3, jnp.zeros((2, 2, 2))), "for two agents, not 3"),
    "monotone, actions": (lambda: monotone_fit(DRAW.random((6, 6))), "5 x 5 at most"),
    "monotone, agents": (
        lambda: monotone_fit(DRAW.random((2,) * 6)),
        "at most five agents of two actions, or three of four",
    ),
    "Nash, actions": (lambda: nash_equilibrium(jnp.asarray(DRAW.random((2, 7, 7)))), "use at most 6x6"),
    "supports, actions": (
        lambda: support_enumeration(jnp.asarray(DRAW.random((2, 7, 7)))),
        "use at most 6x6",
    ),
    "minimax, actions": (lambda: max_min(jnp.asarray(DRAW.random((7, 7)))), "use at most 6x6"),
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_solver_says_how_far_it_goes(name):
    solve, message = BEYOND[name]
    with pytest.raises(BadInputError, match=message) as error:
        solve()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", but_slow(((2,) * 5, (4, 4, 4)), ((2,) * 5,)))
def test_the_largest_monotone_fits(shape):
    """Of a payoff that is monotone already."""
    payoff = sum(np.indices(shape)).astype(float)
    np.testing.assert_allclose(monotone_fit(payoff).q_tot, payoff, atol=1e-9)
