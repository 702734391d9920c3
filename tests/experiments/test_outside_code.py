"""Games, algorithms and claims of somebody else, as the guides in docs/guides/ have them."""

import json
import re
import runpy
import shlex
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

import baselines
import envs
from experiments import play, train
from experiments.check_runs import problem
from jaxmarl_fac.loop import InterruptedRunError
from jaxmarl_fac.play import load_player
from jaxmarl_fac.report.script import read_record
from jaxmarl_fac.statistics import Interval
from tests.engine.test_loop import Listener

ROOT = Path(__file__).parents[2]
GUIDE, CLAIM_GUIDE = (
    (ROOT / "docs/guides" / name).read_text(encoding="utf-8") for name in ("algorithm.md", "claim.md")
)
(MODULE,) = re.findall(r'```python title="my_team.py"\n(.*?)```', GUIDE, re.DOTALL)
(CLAIM,) = re.findall(r'```python title="two_step.py"\n(.*?)```', CLAIM_GUIDE, re.DOTALL)
(MAKE,) = (
    shlex.split(line)[2:] for line in CLAIM_GUIDE.splitlines() if line.startswith("python two_step.py")
)
TRAIN, PLAY = (
    shlex.split(line)[2:] for line in GUIDE.splitlines() if re.match(r"python experiments/(train|play)", line)
)
#: The same with the suite's own parts inside.
COMPOSED = '''
from baselines.factored import Factored, Mixing
from baselines.opponent_modelling import PR2Rule, SoftQRule
from baselines.q_learning import QLearning
from baselines.two_player import Match
from jaxmarl_fac.mixers import VDNMixer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sum(Mixing):
    """A mixer of my own."""

    unused: float = 1.0

    def mixer(self):
        return VDNMixer()


my_match = Match(row=PR2Rule(), column=SoftQRule())
my_vdn = QLearning(method=Factored(mixing=Sum()))
not_an_algorithm = 3
'''


@pytest.fixture
def my_team(tmp_path, monkeypatch):
    """A working folder with the guide's module in it, of which nothing is imported yet."""
    (tmp_path / "my_team.py").write_text(MODULE + COMPOSED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_team", raising=False)
    yield tmp_path
    sys.modules.pop("my_team", None)


def test_the_guides_commands(my_team, capsys):
    """Trained as the guide says: with a bonus of 8 the agents agree on the first action, or on the second."""
    assert train.main([*TRAIN, "--evaluations", "4"]) == 0
    record = json.loads((my_team / "runs/mine/experiment.json").read_text())
    assert record["algorithm"] == {"type": "my_team:MeanReward", "step_size": 0.1, "epsilon": 0.3}
    assert np.max(record["environment"]["payoff"]["data"]) == 8
    with np.load(my_team / "runs/mine/metrics.npz") as metrics:
        assert metrics["episode_return"].shape == (5, 4)
        assert set(metrics["episode_return"][-1]) <= {8.0, 5.0}
        assert {"error", "episode_length"} <= set(metrics)
    assert play.main([*PLAY, "--episodes", "2"]) == 0
    assert "mean return" in capsys.readouterr().out


def test_killed_and_resumed_to_the_same_bits(my_team):
    flags = [*TRAIN, "--evaluations", "4"]
    whole = train.prepare(flags)[1]
    through = train.train(whole)
    with pytest.raises(InterruptedRunError):
        train.train(whole, my_team / "run", tracker=Listener(stop_at=1000, number=signal.SIGINT))
    resumed = train.train(whole, my_team / "run")
    np.testing.assert_array_equal(resumed.learner.params, through.learner.params)
    for name, rows in through.history.arrays().items():
        np.testing.assert_array_equal(resumed.history.arrays()[name], rows)
    player = load_player(my_team / "run", seed=1, modules=["my_team"])
    assert player.returns(3).tolist() == [through.history.last["episode_return"][1]] * 3


def test_a_run_names_the_module_that_loading_it_needs(my_team, bad_input):
    train.train(train.prepare([*TRAIN, "--env-steps", "20", "--evaluations", "1"])[1], my_team / "run")
    with bad_input("my_team:MeanReward is not a part of this suite: name its module my_team to load it"):
        load_player(my_team / "run")


def test_settings_are_flags_and_checked_by_sweeps(my_team):
    _, experiment = train.prepare([*TRAIN, "--step-size", "0.5"])
    assert experiment.algorithm.step_size == 0.5
    flags = ["--algo=my_team:MeanReward", "--env=my_team:agreement", "--env-steps=40"]
    found = problem([*flags, "--epsilon=0.1", "--bonus=3"])
    assert found.pop("experiment")
    assert found == {"bad": "", "unplayable": "", "unknown": [], "varying": {"--epsilon": 0.1}}
    assert problem([*flags, "--gamma=0.1"])["unknown"] == ["--gamma"]


@pytest.mark.slow
def test_parts_of_ones_own_in_the_suites_algorithms(my_team):
    """They are saved under their own module's name inside of the suite's."""
    flags = ["--algo", "my_team:my_vdn", "--env", "matrix-qtran", "--env-steps", "64", "--evaluations", "1"]
    assert train.main([*flags, "--unused", "2", "--hidden", "8", "--batch-size", "4", "--out", "run"]) == 0
    record = json.loads((my_team / "run/experiment.json").read_text())["algorithm"]
    assert record["type"] == "QLearning"
    assert record["method"]["mixing"] == {"type": "my_team:Sum", "unused": 2.0}
    player = load_player(my_team / "run", modules=["my_team"])
    assert player.algorithm.method.mixing.unused == 2.0


@pytest.mark.parametrize(
    ("make", "name", "says"),
    [
        (baselines.make, "my_team:Missing", "my_team has no 'Missing'"),
        (baselines.make, "no_such_module:X", "no_such_module cannot be imported: No module named"),
        (baselines.make, "my_team:not_an_algorithm", "must have a method bind(game, num_envs)"),
        (baselines.make, "broken:X", "broken cannot be imported: division by zero"),
        (envs.make, "my_team:not_an_algorithm", "must be a function or a class that makes a game"),
        (envs.make, "my_team:MeanReward", "must make a TeamEnvironment, not a MeanReward"),
        (envs.make, "my_team:Missing", "my_team has no 'Missing'"),
    ],
)
def test_what_is_not_there(my_team, bad_input, make, name, says):
    (my_team / "broken.py").write_text("1 / 0\n")
    with bad_input(says):
        make(name)


def test_flags_that_would_set_one_of_two_parts(my_team, bad_input):
    with bad_input("Match has a setting 'learning_rate' in row (PR2Rule) and in column (SoftQRule)"):
        train.prepare(["--algo", "my_team:my_match", "--env", "matrix-pr2"])


def test_a_parameter_that_the_game_does_not_have(my_team, bad_input):
    with bad_input("my_team:agreement does not take these parameters"):
        envs.make("my_team:agreement", malus=1)


# The guide's claim


@pytest.fixture
def two_step(tmp_path, monkeypatch):
    """The guide's module, in a working folder of its own."""
    path = tmp_path / "two_step.py"
    path.write_text(CLAIM)
    monkeypatch.chdir(tmp_path)
    return SimpleNamespace(**runpy.run_path(str(path)))


@pytest.mark.slow
def test_the_guides_claim_is_made_and_judged(two_step, capsys):
    assert two_step.main(MAKE) == 0
    record = read_record(Path("runs/two-step/two-step.json"))
    assert record["scale"] == "smoke" and record["seeds"] == 2 and record["env_steps"] == 2 * 2 * 200
    assert record["experiment"].keys() == {"vdn", "qmix"}
    assert record["accept"] == two_step.RULE.accept
    measured = {name: Interval(**number) for name, number in record["measured"].items()}
    assert 0 <= measured["last return of vdn"].value <= 8 and 0 <= measured["last return of qmix"].value <= 8
    assert record["parts"] == two_step.RULE.check(measured)
    assert record["verdict"] == two_step.RULE.judge(measured)[0]
    assert imread("runs/two-step/two-step.png").std() > 0
    assert record["verdict"] in Path("runs/two-step/report.html").read_text()
    capsys.readouterr()
    assert two_step.main(MAKE) == 0
    assert "two-step: done before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("vdn", "qmix", "before", "verdict"),
    [
        (7.1, 7.9, 6.0, "reproduced"),
        (7.2, 7.9, 6.0, "partly"),
        (7.1, 7.8, 6.0, "partly"),
        (7.2, 7.8, 6.0, "not reproduced"),
        (7.1, 7.9, 7.9, "undecided"),
    ],
)
def test_the_guides_rule_on_either_side_of_its_bounds(two_step, vdn, qmix, before, verdict):
    measured = {"last return of vdn": vdn, "last return of qmix": qmix, "its return before training": before}
    assert two_step.RULE.judge(measured | {"last return of the best algorithm": qmix})[0] == verdict
