"""The figure of policy gradients: its worked numbers, its enumerations, and a small run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import reproduce_memarl
from experiments.claims.opponents import gradient_identities as identities
from experiments.claims.opponents import gradients

pytestmark = pytest.mark.usefixtures("float64")


def test_worked_numbers():
    for name, (expected, ours) in gradients.worked_numbers().items():
        np.testing.assert_allclose(ours, expected, rtol=0, atol=6e-7, err_msg=name)


def test_all_plays():
    plays = identities.all_plays(2)
    assert plays.actions.tolist()[5] == [1, 2]
    # Joint actions are numbered with the last agent's action running fastest.
    assert plays.alternatives[5].tolist() == [[2, 5, 8], [3, 4, 5]]
    flat = np.asarray([plays.actions @ jnp.asarray([3, 1])])
    np.testing.assert_array_equal(flat[0], np.arange(9))


def test_models_are_drawn_anew():
    models = identities.random_models(np.random.default_rng(0), 4, 3, (2, 2))
    assert models.transition.shape == (4, 3, 2, 2, 3) and models.reward.shape == (4, 3, 2, 2)
    np.testing.assert_allclose(models.transition.sum(-1), 1)
    assert len(np.unique(models.reward)) == models.reward.size


def test_gradients_of_teams():
    errors, variances = identities.team_gradients(6, 2)
    for name, error in errors.items():
        assert (error > 0.01).all() if name in identities.BIASED else (error < 1e-10).all(), name
    assert set(variances) <= set(errors)
    # With one agent's worth of noise gone DOP's gradient varies least on most games.
    assert np.median(variances[identities.DOP]) < np.median(variances[identities.DEFAULT])


def test_relative_error():
    error = identities.relative_error(jnp.asarray([1.0, 2.5]), jnp.asarray([1.0, -2.0]))
    assert float(error) == 2.25


@pytest.mark.slow
def test_errors_that_are_too_large_do_not_pass():
    """The rule judges what is measured: a loss off by a part in a million is refused."""
    found = gradients.take_measurements(2, 1, 2, 10)
    assert not any(part.startswith("the largest relative") for part in failing(found))
    errors = found.errors[2] | {identities.COMA: found.errors[2][identities.COMA] + 1e-6}
    assert f"the largest relative error of {identities.COMA}" in failing(
        found._replace(errors=found.errors | {2: errors})
    )
    slack = found.trust._replace(slack=found.trust.slack - 1e6)
    assert gradients.VIOLATIONS in failing(found._replace(trust=slack))


def failing(found):
    """The names of the parts that do not hold."""
    measured = gradients.measure(found)
    return [part.what for part in gradients.RULE.parts if not part.holds(measured)]


@pytest.mark.slow
def test_a_small_run(tmp_path):
    with jax.enable_x64(False):  # the figure itself turns it on
        flags = ["--scale", "smoke", "--figures", "gradients", "--out", str(tmp_path)]
        assert reproduce_memarl.main(flags) == 0
    record = json.loads((tmp_path / "gradients.json").read_text())
    assert record["verdict"] == "reproduced", record["why"]
    assert record["games"] == 20
    assert record["ours"]["worked numbers"]["TD3 (2.38)"] == pytest.approx([2.8, 1])
    assert record["ours"]["measured"][gradients.VIOLATIONS] == 0
    assert (tmp_path / "gradients.png").read_bytes().startswith(b"\x89PNG")
