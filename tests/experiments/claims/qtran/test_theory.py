"""QTRAN's theorems: what the figure measures."""

import jax.numpy as jnp
import numpy as np
import pytest

from envs.matrix_games import QTRAN_PAYOFF
from experiments.claims.qtran import theory
from jaxmarl_fac.report.claims import Workshop

pytestmark = pytest.mark.usefixtures("float64")


def test_random_games_meet_what_is_claimed_of_them():
    found = theory.conditions((2, 3, 2), 20)
    for regret in (found.regret, found.regret_9, found.state_value, found.value_9):
        np.testing.assert_allclose(regret, 0, atol=1e-12)
    assert (found.scale > 0).all()
    np.testing.assert_allclose(found.least_slack, 0, atol=1e-12)  # the largest scale leaves none
    assert (found.slack_above < -1e-6).all()
    assert (found.least_slack_9 > -1e-12).all()


@pytest.mark.parametrize(
    "utilities", [[[1.0, 0, 0], [7, 0, 0]], [[4.0, 1, 1], [4, 1, 1]], [[3.0, 0, 1], [5, 0, 0]]]
)
def test_the_loss_of_alt_by_loops(utilities):
    """The mean over nine joint actions of half the sum of both agents' squared least slacks, and L_opt."""
    payoff = np.asarray(QTRAN_PAYOFF, float)
    d = np.add.outer(*utilities) - payoff
    by_loops = np.mean([(d[:, u2].min() ** 2 + d[u1].min() ** 2) / 2 for u1 in range(3) for u2 in range(3)])
    loss = float(theory.alt_loss(jnp.asarray(utilities), jnp.asarray(payoff)))
    assert loss == pytest.approx(by_loops + d[0, 0] ** 2, abs=1e-12)


def test_the_losses_of_alt_have_no_zero_on_the_counterexample():
    last = np.asarray(theory.descend(jnp.asarray(theory.COUNTEREXAMPLE), 8, 500))[:, -1]
    np.testing.assert_allclose(last, 5 / 174, rtol=1e-3)


@pytest.mark.slow
def test_the_figure_is_made(tmp_path):
    (claim,) = theory.CLAIMS
    outcome = claim.make(Workshop("smoke", None, tmp_path))
    assert outcome.measured[theory.TWO_AGENTS] == 0 < outcome.measured[theory.MORE_AGENTS]
    assert claim.rule.judge(outcome.measured)[0] == "partly"
