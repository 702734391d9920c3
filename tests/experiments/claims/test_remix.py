import importlib.util
import json
from types import SimpleNamespace

import numpy as np
import pytest

from envs.stag_hunt import stag_hunt
from experiments import reproduce_remix
from experiments.claims.remix import smax
from experiments.claims.remix.settings import ABLATIONS, REMIX, WEIGHTED
from experiments.claims.remix.smax import MAP_ALGORITHMS, MAPS, ON_SMAX, about_maps
from experiments.claims.remix.stag_hunt import (
    ALGORITHMS,
    PUNISHMENTS,
    changed_for,
    fall,
    hunt,
    hunt_experiment,
    levels,
    optimum,
    state_of_qtran,
)
from experiments.reproduce_remix import CLAIMS
from jaxmarl_fac.report.claims import Outcome, Workshop
from jaxmarl_fac.report.curves import settings_diff
from jaxmarl_fac.report.script import SCALES
from tests.helpers import flat

BY_ID = {claim.id: claim for claim in CLAIMS}
needs_jaxmarl = pytest.mark.skipif(importlib.util.find_spec("jaxmarl") is None, reason="needs JaxMARL")


class MadeUp:
    """A workshop in which training ends as the test wants, on every lane alike but for a little noise.

    `ends` has for each run's name a return, or a return and the share of training at which it is reached.
    """

    scale = "quick"

    def __init__(self, ends, metrics=None):
        self._ends = ends
        self._metrics = metrics or {}

    def seeds(self, **counts):
        return tuple(range(counts[self.scale]))

    def train(self, name, experiment):
        end, when = self._ends[name] if np.ndim(self._ends[name]) else (self._ends[name], 0.5)
        steps = np.linspace(0, experiment.env_steps, experiment.evaluations + 1).astype(int)
        curve = end * np.minimum(1, np.linspace(0, 1, len(steps)) / when)
        noise = np.random.default_rng(0).uniform(-0.01, 0.01, experiment.lanes)
        arrays = {"env_steps": steps, "episode_return": curve[:, None] + noise}
        arrays |= self._metrics.get(name, {})
        return SimpleNamespace(history=SimpleNamespace(arrays=lambda: arrays), seconds=1.0)


def judge(claim: str, workshop: MadeUp) -> tuple[Outcome, str, str]:
    """What it comes to, the verdict, and all that is said."""
    outcome = BY_ID[claim].make(workshop)  # type: ignore[arg-type]
    verdict, why = BY_ID[claim].rule.judge(outcome.measured)
    return outcome, verdict, f"{outcome.why} {why}"


def test_every_claim_states_its_rule_and_cost():
    assert list(BY_ID) == [*PUNISHMENTS, "fig3", "fig4", "fig5", *ON_SMAX, "theory"]
    for claim in CLAIMS:
        assert (
            {"smoke", "quick", "paper"} <= set(claim.cost) <= set(SCALES)
            and claim.rule.accept
            and claim.claim
        )


ON_POLICY = ("vdac-mix", "dop")


@pytest.mark.parametrize("name", ON_POLICY)
def test_rollouts_are_an_episode_of_each_environment(name):
    for scale in ("paper", "quick"):
        experiment = hunt_experiment(name, scale, (0, 1, 2, 3), (-2.0,))
        algorithm = flat(experiment.algorithm)
        assert (algorithm.rollout_length, algorithm.learning_rate, algorithm.td_lambda) == (None, 1e-3, 0.6)
        assert experiment.schedule.update_every == experiment.environment.time_limit + 1
        assert algorithm.recurrent == (scale == "paper")
    assert "6 x 6 cells with 4 agents" in changed_for(experiment, name)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name not in ON_POLICY])
def test_the_papers_scale_is_its_table_2(name):
    paper = hunt_experiment(name, "paper", (0, 1, 2, 3), tuple(PUNISHMENTS.values()))
    algorithm, game = flat(paper.algorithm), paper.environment
    assert (paper.env_steps, paper.games, paper.lanes, paper.evaluation_episodes) == (1_000_000, 4, 16, 32)
    assert paper.env_steps / paper.evaluations == 10_000
    np.testing.assert_array_equal(game.punishment, np.float32([0, -0.5, -1.5, -2]))
    np.testing.assert_array_equal(game.capture_reward, [10] * 4)
    assert (game.height, game.width, game.num_agents, game.num_prey, game.time_limit) == (10, 10, 8, 8, 200)
    assert game.mask_occupied  # section D.1
    assert (algorithm.batch_size, algorithm.replay_size, algorithm.learning_rate) == (128, 10_000, 1e-3)
    assert (algorithm.td_lambda, algorithm.epsilon_start, algorithm.epsilon_end) == (0.6, 0.995, 0.05)
    assert (algorithm.epsilon_steps, algorithm.recurrent, algorithm.consumes) == (100_000, True, "episodes")
    # 8 environments, and an update after 200 steps of each: 8 episodes; copies after 200 episodes.
    assert paper.num_envs * algorithm.update_period * algorithm.target_period == 200 * 200
    if name in WEIGHTED:
        assert algorithm.alpha == 0.1
    if name == "remix":
        assert (algorithm.w_min, algorithm.recent_fraction) == (0.1, 0.5)
    if name == "qtran-base":  # PyMARL2's
        assert algorithm.global_state and algorithm.nopt_weight == 0.1
    assert changed_for(paper, name) == settings_diff(paper, paper) == ""
    quick = hunt_experiment(name, "quick", (0, 1, 2, 3), (-2.0,))
    said = changed_for(quick, name)
    assert "6 x 6 cells with 4 agents, 4 prey and 30 steps" in said
    assert ("global_state False (paper: True)" in said) == (name == "qtran-base")
    assert "mask_occupied False (paper: True)" in said
    assert "batch_size 32 (paper: 128)" in said and "recurrent False (paper: True)" in said
    assert quick.games == 1 and optimum(quick.environment) == 20
    assert (quick.env_steps, flat(quick.algorithm).epsilon_steps) == (1_000_000, 100_000)
    for one in (paper, quick):  # replay holds all of training
        steps = flat(one.algorithm).replay_size * one.environment.time_limit
        assert steps >= one.env_steps


def test_figure_1_says_what_qtran_does_not_see():
    """Its caption is about ReMIX otherwise, which has no such setting."""
    quick, paper = (hunt_experiment("remix", scale, (0,), (-2.0,)) for scale in ("quick", "paper"))
    assert "global_state" not in changed_for(quick, "remix")
    assert "global_state of qtran-base False (paper: True)" in changed_for(
        quick, "remix", state_of_qtran("quick")
    )
    assert changed_for(paper, "remix", state_of_qtran("paper")) == ""


def test_the_optimum_is_a_catch_for_every_two_agents():
    assert optimum(stag_hunt()) == 40
    assert optimum(stag_hunt(agents=5, prey=8, capture_reward=1.0)) == 2
    assert optimum(stag_hunt(agents=8, prey=1)) == 10


HARD = {"vdn": -3, "qmix": -1, "qatten": -2, "qplex": -2, "qtran-base": 4, "cw-qmix": 15, "ow-qmix": 18}
HARD |= {"vdac-mix": -2, "dop": -1.5, "fop": 3}


@pytest.mark.parametrize(
    ("claim", "changed", "verdict", "missing"),
    [
        ("fig1_p2", {"remix": (19, 0.2)}, "reproduced", ()),
        ("fig1_p15", {"remix": (19, 0.2)}, "reproduced", ()),
        # as good as Weighted QMIX, but no faster
        ("fig1_p2", {"remix": 18}, "partly", ("mean return over training of remix above that of vdn",)),
        (
            "fig1_p2",
            {"remix": (17, 0.2)},
            "partly",
            ("last return of remix at least that of ow-qmix and cw-qmix",),
        ),
        # an algorithm that no rule names is faster
        (
            "fig1_p2",
            {"remix": (19, 0.2), "qtran-base": (19, 0.1)},
            "partly",
            ("mean return over training of remix above that of vdn",),
        ),
        # relative overgeneralization does not show
        (
            "fig1_p2",
            {"remix": (19, 0.2), "qmix": 12},
            "partly",
            ("qmix's last return as a share of the optimum below 0.5",),
        ),
        (
            "fig1_p15",
            {"remix": 0.5, "cw-qmix": 1, "ow-qmix": 1, "qmix": 19},
            "not reproduced",
            ("the better Weighted QMIX above that of qmix", "last return of remix above that of qmix"),
        ),
        ("fig1_p0", {"remix": (19, 0.2)}, "reproduced", ()),
        (
            "fig1_p05",
            {"remix": (19, 0.2), "qmix": 20},
            "partly",
            ("last return of remix at least that of vdn",),
        ),
        # nobody hunts: they run away from all prey, or do not even that
        (
            "fig1_p2",
            dict.fromkeys((*HARD, "remix"), -0.5),
            "undecided",
            ("interval of the last return of the best",),
        ),
        (
            "fig1_p0",
            {"remix": 17},
            "not reproduced",
            ("mean return over training of remix above that of vdn",),
        ),
    ],
)
def test_the_rules_of_figure_1(claim, changed, verdict, missing):
    ends = {f"hunt-{name}-p{-PUNISHMENTS[claim]:g}": end for name, end in (HARD | changed).items()}
    ends = {name.replace("p-0", "p0"): end for name, end in ends.items()}
    outcome, found, why = judge(claim, MadeUp(ends))
    assert found == verdict
    for part in missing:
        assert part in why
    assert ("Does not hold" in why) == (verdict != "reproduced")
    assert "the optimum is 20" in why and "6 x 6 cells" in why
    assert set(outcome.ours["last_return"]) == set(ALGORITHMS)
    # Weighted QMIX is the better one of two, and the chance to be faster than it is a probability.
    assert outcome.ours["remix_faster_than_weighted_qmix_probability"]["against"] in WEIGHTED
    assert 0 <= outcome.ours["remix_faster_than_weighted_qmix_probability"]["value"] <= 1


def test_at_papers_scale_four_punishments_share_a_program_and_a_figure_shows_its_own():
    class Shared(MadeUp):
        scale = "paper"
        names: tuple = ()

        def train(self, name, experiment):
            self.names += (name,)
            result = super().train(name, experiment)
            arrays = result.history.arrays()
            if experiment.games == 4:
                arrays["episode_return"][:] = np.repeat(experiment.environment.punishment, 4)
            return result

    workshop = Shared({"hunt-vdn": 0, "hunt-remix-w_min=0.5-p1.5": 7})
    for punishment in PUNISHMENTS.values():
        measured, experiment = hunt(workshop, "vdn", punishment, range(4))  # type: ignore[arg-type]
        assert measured["episode_return"].shape == (101, 4)
        assert (measured["episode_return"] == punishment).all()
        assert measured["env_steps"].shape == (101,)
    assert set(workshop.names) == {"hunt-vdn"}
    _, experiment = hunt(workshop, "remix", -1.5, range(4), w_min=0.5)  # type: ignore[arg-type]
    assert experiment.games == 1 and flat(experiment.algorithm).w_min == 0.5
    assert workshop.names[-1] == "hunt-remix-w_min=0.5-p1.5"


def made_up_weights(first: float, last: float, bins: dict[int, float], seeds: int = 4) -> dict:
    """Mean weights at 31 evaluations and shares of 20 bins; none at the first two, before learning."""
    weights = np.concatenate([[np.nan, np.nan], np.linspace(first, last, 29)])
    shares = np.zeros((31, seeds, 20))
    for place, share in bins.items():
        shares[..., place] = share
    shares[:2] = np.nan
    return {"mean_weight": weights[:, None] + np.linspace(0, 0.01, seeds), "weight_shares": shares}


MANY, TWO = {2: 0.6, 8: 0.2, 13: 0.1, 19: 0.1}, {2: 0.7, 19: 0.3}


@pytest.mark.parametrize(
    ("remix", "ow", "verdict", "missing"),
    [
        ((0.6, 0.2, MANY), (0.6, 0.3, TWO), "reproduced", ""),
        ((0.6, 0.2, TWO), (0.6, 0.3, TWO), "partly", "number of 20 bins of remix's weights"),
        ((0.2, 0.6, MANY), (0.6, 0.3, TWO), "partly", "fall of remix's mean weight"),
        ((0.6, 0.2, MANY), (0.3, 0.3, TWO), "partly", "fall of ow-qmix's mean weight"),
    ],
)
def test_the_rule_of_figure_3(remix, ow, verdict, missing):
    metrics = {
        "hunt-remix-p2": made_up_weights(*remix),
        "hunt-ow-qmix-p2": made_up_weights(*ow),
        "hunt-cw-qmix-p2": made_up_weights(0.5, 0.2, TWO),
    }
    outcome, found, why = judge("fig3", MadeUp(dict.fromkeys(metrics, 15), metrics))
    assert found == verdict
    assert missing in why
    assert outcome.ours["remix"]["levels"] == len(remix[2])
    assert outcome.ours["cw-qmix"]["levels"] == 2
    assert "6 x 6" in why


def test_levels_and_falls():
    shares = np.zeros((2, 2, 4))
    shares[..., 0], shares[..., 1] = 0.985, 0.01
    shares[0, 0, 3] = 0.02  # once in four is half a percent
    assert levels(shares) == 2
    weights = np.asarray([[0.9, 0.7], [0.5, 0.5], [0.5, 0.5], [0.4, 0.4]])
    assert fall(weights).value == pytest.approx(0.4)  # (.5 + .3) / 2
    assert fall(weights).low == pytest.approx(0.3) and fall(weights).high == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [((18, 12, 3), "reproduced"), ((18, 18, 3), "partly"), ((3, 12, 18), "not reproduced")],
)
def test_the_rule_of_figure_4(ends, verdict):
    names = ("hunt-remix-p1.5", "hunt-remix-w_min=0.5-p1.5", "hunt-remix-w_min=0.8-p1.5")
    outcome, found, _ = judge("fig4", MadeUp(dict(zip(names, ends, strict=True))))
    assert found == verdict
    assert [score.value for score in outcome.ours["last_return"].values()] == pytest.approx(ends, abs=0.01)
    assert list(outcome.ours["last_return"]) == ["w_min = 0.1", "w_min = 0.5", "w_min = 0.8"]


ABLATED = ("bellman=False", "underestimation=False", "gradient=False", "recent_fraction=0.0")


@pytest.mark.parametrize(
    ("ends", "verdict", "missing"),
    [
        ((18, 2, 15, 10, 12), "reproduced", ""),
        ((18, 2, 15, 10, 19), "partly", "last return of remix at least that of no on-policy"),
        ((18, 5, 15, 3, 12), "partly", "last return of no Bellman error at most that of"),
        ((1, 18, 15, 16, 17), "not reproduced", "last return of remix above that of no Bellman error"),
    ],
)
def test_the_rule_of_figure_5(ends, verdict, missing, monkeypatch):
    runs = [f"hunt-remix-{changed}p2" for changed in ("", *(f"{words}-" for words in ABLATED))]
    outcome, found, why = judge("fig5", MadeUp(dict(zip(runs, ends, strict=True))))
    assert found == verdict and missing in why
    assert list(outcome.ours["last_return"]) == [REMIX, *ABLATIONS]

    monkeypatch.setattr(smax, "smax_experiment", stand_in)
    runs = [f"smax-6h_vs_8z-remix{changed}" for changed in ("", *(f"-{words}" for words in ABLATED))]
    outcome, found, why = judge("fig5_smax", MadeUp(dict(zip(runs, ends, strict=True))))
    assert found == verdict and missing in why


def stand_in(name, scale, seeds, map_name, **changed):
    """In place of an experiment on SMAX, where JaxMARL is missing."""
    return hunt_experiment(name, scale, seeds, (0.0,), **changed)


@pytest.mark.parametrize(
    ("second", "verdict"),
    [("6h_vs_8z", "reproduced"), ("5m_vs_6m", "reproduced"), ("3s_vs_5z", "partly")],
)
def test_the_rule_of_figure_2_is_the_order_on_two_maps(second, verdict, monkeypatch):
    monkeypatch.setattr(smax, "smax_experiment", stand_in)
    ends = {f"smax-{name}-{algo}": 1.0 for name in MAPS for algo in MAP_ALGORITHMS}
    ends |= {f"smax-{name}-remix": 1.5 for name in MAPS}
    ends[f"smax-{second}-qmix"] = 1.4 if second == "6h_vs_8z" else 1.7
    _, found, why = judge("fig2", MadeUp(ends))
    assert found == verdict
    assert about_maps() in why


def test_the_report_says_which_maps_there_are():
    said = about_maps()
    assert "SMAX has 3s_vs_5z, 6h_vs_8z." in said
    for missing in ("1c3s5z (SMAX has no colossus; nearest: smax:3s5z)", "MMM2", "corridor"):
        assert missing in said


@pytest.mark.skipif(importlib.util.find_spec("jaxmarl") is not None, reason="JaxMARL is installed")
def test_without_jaxmarl_figures_on_smax_say_how_to_get_it(tmp_path, monkeypatch, bad_input, capsys):
    with bad_input("needs JaxMARL: pip install"):
        reproduce_remix.main(["--figures", "fig3", "fig2", "--scale", "smoke", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())  # before anything was trained
    asked = []
    monkeypatch.setattr(reproduce_remix.script, "main", lambda *given: asked.append(given[-1]) or 0)
    assert reproduce_remix.main(["--scale", "smoke"]) == 0
    assert asked == [["--scale", "smoke", "--figures", *(i for i in BY_ID if i not in ON_SMAX)]]
    assert "fig2 and fig5_smax are left out: smax:6h_vs_8z needs JaxMARL" in capsys.readouterr().out
    assert reproduce_remix.main(["--list"]) == 0 and asked[-1] == ["--list"]


@pytest.mark.slow
def test_the_stag_hunt_at_smoke_scale(tmp_path):
    figures = ["fig1_p2", "fig3", "fig4", "fig5"]
    flags = ["--scale", "smoke", "--figures", *figures, "--out", str(tmp_path)]
    assert reproduce_remix.main(flags) == 0
    records = {figure: json.loads((tmp_path / f"{figure}.json").read_text()) for figure in figures}
    # Figures share their runs: all algorithms, and what figures 4 (other punishment) and 5 change.
    assert len(list((tmp_path / "runs").iterdir())) == len(ALGORITHMS) + 3 + len(ABLATIONS)
    for score in records["fig1_p2"]["ours"]["last_return"].values():
        assert -40 <= score["low"] <= score["value"] <= score["high"] <= 10
    weights = records["fig3"]["ours"]
    for name in ("remix", *WEIGHTED):
        assert sum(weights[name]["last_shares"]) == pytest.approx(1, abs=1e-4)
        assert 0.1 <= weights[name]["last_mean_weight"] <= 1
    for figure in figures:
        assert (tmp_path / f"{figure}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@needs_jaxmarl
def test_smax_at_smoke_scale(tmp_path):
    workshop = Workshop("smoke", None, tmp_path)
    outcome = BY_ID["fig5_smax"].make(workshop)
    for score in outcome.ours["last_return"].values():
        assert 0 <= score.value <= 2
    assert set(workshop.experiments) == {
        "smax-6h_vs_8z-remix",
        *(f"smax-6h_vs_8z-remix-{changed}" for changed in ABLATED),
    }
