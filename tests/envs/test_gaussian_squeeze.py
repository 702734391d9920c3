import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jumanji.testing.env_not_smoke import check_env_does_not_smoke, check_env_specs_does_not_smoke
from PIL import Image

from envs import gaussian_squeeze as squeeze
from envs.errors import BadInputError
from envs.gaussian_squeeze import GaussianSqueeze, GaussianSqueezeState
from envs.squeeze_viewer import SqueezeViewer
from tests.reference import gaussian_squeeze as reference

GS = squeeze.gaussian_squeeze()
MGS = squeeze.multi_domain_squeeze()
RELEASE = squeeze.redrawn_squeeze()

# Three digits of levels 0 to 99: every usage up to 101 in steps of .0001, nearly a continuum.
FINE, FINE_ACTIONS = (1.0, 0.01, 0.0001), 100

jit_resets = jax.jit(lambda env, keys: jax.vmap(env.reset)(keys))
jit_steps = jax.jit(lambda env, states, actions: jax.vmap(env.step)(states, actions))


# Rewards and optima.


@pytest.mark.parametrize(
    ("mu", "sigma", "usage", "reward"),
    [
        pytest.param([8.0], [1.0], 8.06202, 8.03107, id="GS"),
        pytest.param([8.0], [0.5], 8.01559, 8.00780, id="GS of the release"),
        pytest.param([8.0, 5.0], [0.5, 1.0], 8.01551, 8.00870, id="MGS"),
        pytest.param([8.0, 5.0], [0.5, 1.0], 5.09808, 5.04927, id="the low peak of MGS"),
    ],
)
def test_rewards_at_the_peaks(mu: list[float], sigma: list[float], usage: float, reward: float) -> None:
    assert squeeze.squeeze_reward(usage, np.asarray(mu), np.asarray(sigma)) == pytest.approx(reward, abs=6e-6)
    jitted = jax.jit(squeeze.squeeze_reward)(jnp.float32(usage), jnp.asarray(mu), jnp.asarray(sigma))
    assert jitted == pytest.approx(reward, abs=2e-5)


@pytest.mark.parametrize(
    ("mu", "sigma", "usage"),
    [([8.0], [1.0], 8.06202), ([8.0], [0.5], 8.01559), ([8.0, 5.0], [0.5, 1.0], 8.01551)],
)
def test_best_usage_of_a_fine_team_is_the_peak(mu: list[float], sigma: list[float], usage: float) -> None:
    assert squeeze.best_usage(mu, sigma, FINE, FINE_ACTIONS) == pytest.approx(usage, abs=6e-5)


def test_best_usage_takes_the_low_peak_if_the_high_one_is_out_of_reach() -> None:
    # Ten agents with nine levels of .07 use at most 6.3.
    assert squeeze.best_usage([8.0, 5.0], [0.5, 1.0], [0.07] * 10, 10) == pytest.approx(0.07 * 73)
    # With .06 even the low peak is: 5.4 is beyond it, and 5.1 = 85 * .06 is next to it.
    assert squeeze.best_usage([8.0, 5.0], [0.5, 1.0], [0.06] * 10, 10) == pytest.approx(5.1)
    # With .01 the more the better.
    assert squeeze.best_usage([8.0, 5.0], [0.5, 1.0], [0.01] * 10, 10) == pytest.approx(0.9)


@pytest.mark.parametrize("s", [0.1, 0.2])
def test_optimum_of_mgs_with_equal_s(s: float) -> None:
    assert squeeze.multi_domain_squeeze(s=s).optimum() == pytest.approx(8.000987, abs=1e-6)


def test_optimum_of_gs_is_nearly_the_peak_for_every_draw() -> None:
    for seed in range(15):
        assert 8.030 < squeeze.gaussian_squeeze(seed=seed).optimum() < 8.031075


domains = st.lists(st.tuples(st.floats(0.5, 9.0), st.floats(0.2, 2.0)), min_size=1, max_size=3)  # (mu, sigma)


@settings(max_examples=60, deadline=None)
@given(domains, st.lists(st.floats(0.0, 1.0), min_size=2, max_size=5), st.integers(2, 5))
def test_optimum_is_that_of_all_joint_actions(
    domains: list[tuple[float, float]], s: list[float], actions: int
) -> None:
    mu, sigma = (list(column) for column in zip(*domains, strict=True))
    usage = squeeze.best_usage(mu, sigma, s, actions)
    found = squeeze.squeeze_reward(usage, np.asarray(mu), np.asarray(sigma))
    assert found == pytest.approx(reference.optimum(s, mu, sigma, actions), rel=1e-9, abs=1e-12)


def test_optimum_of_ten_different_agents_beats_a_million_guesses() -> None:
    rng = np.random.default_rng(3)
    # Coarse enough that the best x is not next to the peak: 4^10 joint actions, all of them tried.
    s = rng.uniform(0.0, 0.4, 10)
    halves = [
        np.asarray([np.dot(levels, part) for levels in itertools.product(range(4), repeat=5)])
        for part in (s[:5], s[5:])
    ]
    every = (halves[0][:, None] + halves[1]).ravel()
    mu, sigma = np.asarray([2.5, 3.1]), np.asarray([1e-4, 1e-4])  # needles, to miss all but the closest
    best = squeeze.squeeze_reward(every, mu, sigma).max()
    found = squeeze.squeeze_reward(squeeze.best_usage(mu, sigma, s, 4), mu, sigma)
    assert 0.01 < best < 3.1  # no joint action hits a peak
    assert found == pytest.approx(best, rel=1e-6)


def test_reachable_usages() -> None:
    np.testing.assert_allclose(squeeze.reachable_usages([0.1] * 10, 10), np.arange(91) * 0.1)
    np.testing.assert_allclose(
        squeeze.reachable_usages([1.0, 0.25], 3), [0, 0.25, 0.5, 1, 1.25, 1.5, 2, 2.25, 2.5]
    )


def test_thinned_usages_stay_close(monkeypatch: pytest.MonkeyPatch) -> None:
    s = np.random.default_rng(0).uniform(0.0, 0.2, 5)
    every = squeeze.reachable_usages(s, 10)
    assert len(every) == 10**5
    monkeypatch.setattr(squeeze, "MAX_SUMS", 1000)
    few = squeeze.reachable_usages(s, 10)
    assert len(few) <= 1000
    nearest = every[np.clip(np.searchsorted(every, few), 0, len(every) - 1)]
    np.testing.assert_allclose(few, nearest, atol=1e-4)  # they are real ones
    gaps = np.abs(
        every[:, None] - few[np.clip(np.searchsorted(few, every)[:, None] - [0, 1], 0, len(few) - 1)]
    )
    assert gaps.min(axis=1).max() < len(s) * 10 * every[-1] / 1000


# The games.


@pytest.mark.parametrize(
    "env", [pytest.param(GS, id="GS"), pytest.param(MGS, id="MGS"), pytest.param(RELEASE, id="release")]
)
def test_steps_as_the_reference(env: GaussianSqueeze) -> None:
    games = 300
    actions = np.random.default_rng(1).integers(0, env.num_actions, (games, 10))
    states, first = jit_resets(env, jax.random.split(jax.random.key(4), games))
    after, timesteps = jit_steps(env, states, actions)
    assert (timesteps.step_type == 2).all() and (timesteps.discount == 0).all()
    assert (timesteps.observation.step_count == 1).all()
    np.testing.assert_array_equal(after.last_actions, actions)
    mu, sigma = env.mu.tolist(), env.sigma.tolist()
    for game in range(games):
        s = np.asarray(env.s if states.s is None else states.s[game], float)
        expected = reference.reward(actions[game], s, mu, sigma)
        assert timesteps.reward[game] == pytest.approx(expected, rel=2e-4, abs=1e-6)
        for observation in (first.observation, timesteps.observation):
            np.testing.assert_allclose(observation.agents_view[game], np.tile(10 * s, (10, 1)), rtol=1e-6)
            np.testing.assert_allclose(observation.global_state[game], 10 * s, rtol=1e-6)
            assert observation.action_mask[game].shape == (10, env.num_actions)
    assert timesteps.reward.max() > 1.0


def test_settings_of_the_paper_and_of_the_release() -> None:
    assert (GS.mu.tolist(), GS.sigma.tolist(), GS.num_actions, GS.num_agents) == ([8.0], [1.0], 10, 10)
    assert (MGS.mu.tolist(), MGS.sigma.tolist(), MGS.num_actions) == ([8.0, 5.0], [0.5, 1.0], 10)
    assert MGS.s.tolist() == pytest.approx([0.1] * 10)
    assert (RELEASE.mu.tolist(), RELEASE.num_actions) == ([8.0], 11)
    assert (RELEASE.sigma**2).tolist() == [0.25]
    assert RELEASE.s.tolist() == pytest.approx([0.2] * 10)
    assert GS.stateless and MGS.stateless and not RELEASE.stateless
    assert GS.fully_observable and RELEASE.fully_observable


def test_only_the_release_draws_s_in_every_episode() -> None:
    keys = jax.random.split(jax.random.key(0), 2000)
    assert jit_resets(GS, keys)[0].s is None
    views = np.asarray(jit_resets(GS, keys)[1].observation.agents_view)
    assert (views == views[0, 0]).all()
    drawn = np.asarray(jit_resets(RELEASE, keys)[0].s)
    assert drawn.min() >= 0 and drawn.max() < 0.2
    assert len(np.unique(drawn[:, 0])) > 1990
    # Uniform: mean .1 and standard deviation .2 / sqrt(12), within five standard errors of 20,000 draws.
    assert drawn.mean() == pytest.approx(0.1, abs=0.002)
    assert drawn.std() == pytest.approx(0.2 / np.sqrt(12), abs=0.001)


def test_optimum_of_a_drawn_episode() -> None:
    state, _ = RELEASE.reset(jax.random.key(1))
    best = RELEASE.optimum(state.s)
    usages = squeeze.reachable_usages(np.asarray(state.s)[:5], 11)
    more = squeeze.reachable_usages(np.asarray(state.s)[5:], 11)
    guesses = usages[:, None] + more[:: len(more) // 200]
    assert squeeze.squeeze_reward(guesses.ravel(), np.asarray([8.0]), np.asarray([0.5])).max() <= best
    assert best == pytest.approx(8.00780, abs=1e-5)
    with pytest.raises(BadInputError, match="give optimum\\(\\) the state's s"):
        RELEASE.optimum()


def test_every_drawn_team_reaches_the_peak() -> None:
    least = squeeze.rightmost_peak(8.0, 1.0) / 9
    assert least * 9 == pytest.approx(8.06202, abs=6e-6)
    draw = jax.jit(jax.vmap(lambda key, least: squeeze.draw_resources(key, 10, least), (0, None)))
    keys = jax.random.split(jax.random.key(0), 4000)
    free, fit = np.asarray(draw(keys, 0.0)), np.asarray(draw(keys, least))
    assert fit.min() >= 0 and fit.max() < 0.2
    assert (fit.sum(axis=1) >= least).all()
    reached = free.sum(axis=1) >= least
    assert reached.mean() == pytest.approx(0.72, abs=0.03)
    np.testing.assert_array_equal(fit[reached], free[reached])  # draws that reach it are kept as they are
    # What is left is the uniform distribution given the sum: the same mean as among the kept ones.
    assert fit[~reached].sum(axis=1).mean() == pytest.approx(free[reached].sum(axis=1).mean(), abs=0.015)


def test_keys_are_a_batch_of_games() -> None:
    keys = jax.random.split(jax.random.key(7), 3)
    envs = jax.vmap(lambda key: GS.replace(s=squeeze.draw_resources(key, 10, 0.9)))(keys)  # type: ignore[attr-defined]
    actions = jnp.arange(10)
    rewards = jax.vmap(lambda env: env.step(env.reset(jax.random.key(0))[0], actions)[1].reward)(envs)
    for game, reward in enumerate(rewards):
        assert reward == pytest.approx(
            reference.reward(range(10), envs.s[game].tolist(), [8.0], [1.0]), rel=1e-4
        )
    assert len(set(rewards.tolist())) == 3
    with pytest.raises(BadInputError, match="one game"):
        envs.optimum()
    one = jax.tree.map(lambda leaf: leaf[1], envs)
    assert one.optimum() <= 8.03107


def test_seeds_are_games() -> None:
    again = squeeze.gaussian_squeeze(seed=0)
    np.testing.assert_array_equal(GS.s, again.s)
    assert (GS.s != squeeze.gaussian_squeeze(seed=1).s).all()


@pytest.mark.slow
def test_does_not_smoke() -> None:
    for env in (GS, RELEASE):
        check_env_does_not_smoke(env)
        check_env_specs_does_not_smoke(env)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"s": [0.1] * 9}, "s has shape \\(9,\\): give one number for each of the 10 agents"),
        ({"s": [[0.1] * 10]}, "s has shape \\(1, 10\\)"),
        ({"s": [-0.1] * 10}, "s holds -0.1: .* must be >= 0"),
        ({"s": [float("nan")] * 10}, "s holds NaN or infinite"),
        ({"mu": float("nan")}, "mu holds NaN or infinite"),
        ({"mu": "eight"}, "mu is ragged or not numeric"),
        ({"mu": []}, "shapes \\(0,\\) and \\(1,\\)"),
        ({"mu": [8, 5]}, "mu and sigma have shapes \\(2,\\) and \\(1,\\)"),
        ({"sigma": 0.0}, "sigma holds 0: the width of a domain must be > 0"),
        ({"sigma": float("inf")}, "sigma holds NaN or infinite"),
        ({"mu": True}, "mu is ragged or not numeric"),
        ({"mu": 8 + 1j}, "mu is ragged or not numeric"),
        ({"mu": 1e200}, "mu holds NaN or infinite"),
        ({"sigma": 1e-45}, "sigma holds 1e-45: the width of a domain must be > 0"),
        ({"agents": 1}, "agents must be at least 2, not 1"),
        ({"agents": 10**6}, "observations of 1000000 agents with 10 actions would take 4 TB of memory"),
        ({"actions": 1}, "actions must be at least 2, not 1"),
        ({"actions": 2**31}, "actions must be at most 2147483647, not 2147483648"),
        ({"seed": 2**32}, r"seed must be in \[0, 4294967295\], not 4294967296"),
        ({"seed": -1}, r"seed must be in \[0, 4294967295\], not -1"),
        ({"agents": 4}, "4 agents with 10 actions .* rarely reach a usage of 8.06202"),
        ({"mu": 30}, "rarely reach a usage of 30"),
    ],
)
def test_bad_input(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message) as error:
        squeeze.gaussian_squeeze(**parameters)
    assert "\n" not in str(error.value)


# Pictures.


def test_viewer_shows_usage_and_reward() -> None:
    viewer = SqueezeViewer(
        lambda x: squeeze.squeeze_reward(x, np.asarray([8.0]), np.asarray([1.0])), np.full(4, 1.0), 10
    )
    figure = plt.figure()
    played = GaussianSqueezeState(None, None, jnp.int8(1), jnp.asarray([1, 2, 0, 5], jnp.int8))
    viewer.draw(figure, [played])
    curve, shares = figure.axes
    assert curve.get_title() == "usage 8.000 pays 8.000"
    assert [patch.get_width() for patch in shares.patches] == [1, 2, 0, 5]
    assert [patch.get_x() for patch in shares.patches] == [0, 1, 3, 3]
    assert [text.get_text() for text in shares.texts] == ["1", "2", "5"]
    plt.close("all")


def test_pictures_are_written(tmp_path: Path) -> None:
    before, _ = GS.reset(jax.random.key(0))
    after, _ = GS.step(before, jnp.full((10,), 8))
    pixels = GS.render(after, str(tmp_path / "still.png"))
    assert pixels.dtype == np.uint8 and (pixels != GS.render(before)).any()
    assert (tmp_path / "still.png").stat().st_size > 1000
    RELEASE.animate([RELEASE.reset(jax.random.key(0))[0]] * 2, save_path=str(tmp_path / "play.gif"))
    with Image.open(tmp_path / "play.gif") as picture:
        assert picture.format == "GIF"
    GS.animate([before, after], interval=500, save_path=str(tmp_path / "squeeze.gif"))
    with Image.open(tmp_path / "squeeze.gif") as picture:
        assert picture.n_frames == 2
    plt.close("all")
