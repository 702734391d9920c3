from types import SimpleNamespace

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

import baselines
import envs
from baselines.probes import start_policies
from envs.errors import BadInputError
from experiments.claims.opponents import overview as opponents
from experiments.claims.overview import TEAM_GAMES, overview, success, unplayable
from experiments.claims.qtran import overview as qtran
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.report.claims import Workshop
from jaxmarl_fac.report.figures import share_table
from jaxmarl_fac.statistics import Interval
from tests.helpers import but_slow

OVERVIEWS = {"opponents": (opponents, opponents.GAMES), "qtran": (qtran, TEAM_GAMES)}


class MadeUp:
    """A workshop in which a quarter of the seeds ends at the optimum, and plays uniformly."""

    scale = "quick"

    def __init__(self):
        self.trained = []

    def choose(self, **choices):
        return choices[self.scale]

    def seeds(self, **counts):
        return tuple(range(counts[self.scale]))

    def train(self, name, experiment):
        self.trained.append(name)
        good = np.arange(len(experiment.seeds)) % 4 == 0
        policies = np.where(good[:, None, None], [0.45, 0.55], [0.3, 0.7]) * np.ones((1, 2, 1))
        last = {"episode_return": np.where(good, 11.0, 6.0), "start_policies": policies}
        return SimpleNamespace(history=SimpleNamespace(last=last))


@pytest.mark.parametrize("family", OVERVIEWS)
def test_every_pair_is_trained_or_says_why_not(family):
    (module, games), workshop = OVERVIEWS[family], MadeUp()
    outcome = overview(workshop, module.players(), games, "title")
    pairs = {(name, game) for name in module.players() for game in games}
    cells = {(name, game): cell for name, row in _cells(outcome).items() for game, cell in row.items()}
    assert cells.keys() == pairs
    for (name, game), cell in cells.items():
        if isinstance(cell, str):
            assert 5 < len(cell) < 60 and success(name, game) not in outcome.measured
        else:
            assert cell.value == 0.25 and cell.low < 0.25 < cell.high
    assert (
        len(workshop.trained) == len(outcome.measured) == sum(isinstance(c, Interval) for c in cells.values())
    )
    assert module.CLAIMS[0].rule.names() <= outcome.measured.keys()


def _cells(outcome):
    return outcome.ours["share of seeds that succeed"]


def test_what_does_not_go_together():
    assert unplayable(baselines.make("sac"), "two-step") == "needs continuous actions"
    assert unplayable(baselines.make("nash-q"), "differential") == "needs discrete actions"
    assert not unplayable(baselines.make("nash-q"), "two-step")
    assert unplayable(baselines.make("vdn"), "matrix-pr2")


@pytest.mark.parametrize("name", but_slow(("friend-q", "sac-discrete"), ("friend-q",)))
def test_policies_at_the_start(name):
    """Before training all tables are 0; networks are no more than a little off."""
    algorithm, game = baselines.make(name), envs.make("matrix-pr2")
    params = algorithm.bind(GameSpec.of(game)).init(jax.random.key(0)).params
    policies = np.asarray(start_policies(algorithm, game, params)["start_policies"])
    assert policies.shape == (2, 2)
    np.testing.assert_allclose(policies.sum(1), 1, atol=1e-6)
    if name == "sac-discrete":
        assert (np.abs(policies - 0.5) < 0.5).all()


def test_a_table_of_shares():
    axes = Figure().subplots()
    share_table(axes, [[Interval(0.25, 0.1, 0.5), "needs two agents"]], ["a"], ["x", "y"], "title")
    assert [text.get_text() for text in axes.texts] == ["25 %\n[10, 50]", "needs two agents"]
    with pytest.raises(BadInputError, match="row and 1 column labels"):
        share_table(axes, [[Interval(0.25, 0.1, 0.5), "needs two agents"]], ["a"], ["x"])


@pytest.mark.slow
def test_pairs_are_trained_at_smoke_scale(tmp_path):
    """A tabular and a deep learner; policies, a mean return, and a game that is refused."""
    players = {name: opponents.players()[name] for name in ("nash-q", "sac-discrete")}
    games = {name: opponents.GAMES[name] for name in ("matrix-pr2", "random-state", "differential")}
    outcome = overview(Workshop("smoke", None, tmp_path), players, games, "title")
    assert len(outcome.measured) == 4
    for row in _cells(outcome).values():
        assert row["differential"] == "needs discrete actions"
        assert all(0 <= row[game].value <= 1 for game in ("matrix-pr2", "random-state"))
