"""A small run of MAVEN's figure."""

import json
import math

import pytest

from experiments.claims.opponents import maven
from jaxmarl_fac.report import script


def test_settings_are_the_releases_at_the_scale_paper():
    """Its key of the figure: noise_dim 16, epsilon in 100 steps to .01, and QMIX's in 50,000."""
    mine, qmix, one_hot = (
        maven.committed_experiment(name, "paper", (0,)) for name in ("maven", "qmix", maven.ONE_HOT)
    )
    assert mine.env_steps == qmix.env_steps == 105_000
    assert mine.environment.time_limit == 10 and not mine.environment.one_hot_views
    assert one_hot.environment.one_hot_views and one_hot.algorithm == qmix.algorithm
    assert (mine.algorithm.exploration.epsilon_steps, qmix.algorithm.exploration.epsilon_steps) == (
        100,
        50_000,
    )
    assert mine.algorithm.exploration.epsilon_end == qmix.algorithm.exploration.epsilon_end == 0.01
    method = mine.algorithm.method
    assert (method.num_latents, method.latent_policy, method.latent_entropy) == (16, "learned", 1e-3)
    assert (method.mi_coefficient, method.recurrent_discriminator) == (1, True)
    for each in (mine, qmix):
        assert each.algorithm.recurrent and each.algorithm.gamma == 0.99
        assert (each.algorithm.replay.replay_size, each.algorithm.replay.batch_size) == (1000, 32)
        assert each.algorithm.optimiser.learning_rate == 5e-4


@pytest.mark.slow
def test_a_small_run(tmp_path):
    assert script.main("maven", maven.CLAIMS, tmp_path, ["--scale", "smoke"]) == 0
    record = json.loads((tmp_path / "maven.json").read_text())
    assert record["seeds"] == 2
    assert set(record["ours"]) == {"maven", "qmix", maven.ONE_HOT}
    assert "nats (median; log 16 = " in record["why"] and str(round(math.log(16), 2)) in record["why"]
    assert (tmp_path / "maven.png").stat().st_size > 10_000
