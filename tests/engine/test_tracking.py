import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxmarl_fac.statistics import bootstrap_interval
from jaxmarl_fac.tracking import MOST_SINGLE_SEEDS, History, WandbTracker

# History


def rows(count):
    return arrays(np.float32, (count, 3), elements=st.floats(width=32))


@settings(max_examples=20, deadline=None)
@given(values=rows(4), steps=st.lists(st.integers(0, 2**40), min_size=4, max_size=4, unique=True).map(sorted))
def test_history_round_trip(values, steps):
    history = History()
    assert history.last_env_steps == -1
    for step, row in zip(steps, values, strict=True):
        history.append(step, {"q": row, "table": np.stack([row, -row], axis=1)})
        assert history.last_env_steps == step
        np.testing.assert_array_equal(history.last["q"], row)
    kept = history.arrays()
    assert kept["env_steps"].tolist() == steps
    assert kept["q"].tobytes() == values.tobytes()
    assert kept["table"].shape == (4, 3, 2)
    again = History(kept)
    assert again.last_env_steps == steps[-1]
    for name, array in again.arrays().items():
        assert array.tobytes() == kept[name].tobytes()
    again.append(2**41, history.last)  # it goes on
    assert again.arrays()["q"].shape == (5, 3)
    assert history.arrays()["q"].shape == (4, 3)  # and the first does not


def test_an_empty_history():
    kept = History().arrays()
    assert list(kept) == ["env_steps"]
    assert kept["env_steps"].shape == (0,)
    assert History(kept).last_env_steps == -1


def test_history_as_a_file(tmp_path):
    history = History()
    for step in (0, 10):
        history.append(step, {"episode_return": np.asarray([step, np.nan, 1 / 3], np.float32)})
    path = tmp_path / "metrics.npz"
    history.save(path)
    history.save(path)  # over the old one
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.npz"]
    with np.load(path) as kept:
        assert sorted(kept) == ["env_steps", "episode_return"]
        np.testing.assert_array_equal(kept["env_steps"], [0, 10])
        assert kept["episode_return"].tobytes() == history.arrays()["episode_return"].tobytes()


def test_a_file_is_never_half_written(tmp_path, monkeypatch):
    history = History()
    history.append(0, {"q": np.ones(2)})
    path = tmp_path / "metrics.npz"
    history.save(path)
    before = path.read_bytes()
    history.append(1, {"q": np.ones(2)})

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        history.save(path)
    assert path.read_bytes() == before


# Weights & Biases, in place of which a fake listens


class FakeWandb(types.ModuleType):
    def __init__(self):
        super().__init__("wandb")
        self.options, self.logged, self.exit_codes = None, [], []
        self.Settings = dict

    def init(self, **options):
        self.options = options
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self, exit_code):
        self.exit_codes.append(exit_code)


@pytest.fixture
def fake(monkeypatch):
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def tracker(tmp_path, seeds, mode="offline"):
    return WandbTracker(
        mode,
        {"learning_rate": 0.5},
        seeds,
        project="games",
        group="vdn-matrix",
        tags=("vdn", "matrix"),
        name="vdn on matrix",
        out=tmp_path,
    )


def test_how_a_run_is_filed(fake, tmp_path):
    tracker(tmp_path, [0]).finish()
    options = fake.options
    assert (options["mode"], options["project"], options["group"]) == ("offline", "games", "vdn-matrix")
    assert options["tags"] == ["vdn", "matrix"]
    assert options["config"] == {"learning_rate": 0.5}
    assert options["name"] == "vdn on matrix"
    assert options["dir"] == str(tmp_path)
    assert fake.exit_codes == [0]


def test_what_is_logged(fake, tmp_path):
    """IQM, interval and every seed, on the axis of environment steps."""
    listening = tracker(tmp_path, [7, 3, 12, 4])
    history = History()
    returns = np.asarray([1.0, 8, 3, 5])
    history.append(0, {"episode_return": returns * 0, "loss": np.full(4, np.nan)})
    listening.log(history, 1.5)
    history.append(500, {"episode_return": returns, "loss": returns / 2, "table": np.ones((4, 2, 2))})
    listening.log(history, 4.5)

    first, second = fake.logged
    assert [step for step, _ in fake.logged] == [0, 500]
    assert first[1]["env_steps"] == 0
    assert first[1]["seconds"] == 1.5
    assert not [name for name in first[1] if "loss" in name]  # nothing was learned yet
    values = second[1]
    assert values["episode_return/iqm"] == 4  # the middle two of 1, 3, 5, 8
    assert values["loss/iqm"] == 2
    interval = bootstrap_interval(returns, resamples=500)
    assert (values["episode_return/low"], values["episode_return/high"]) == (interval.low, interval.high)
    assert 1 <= values["episode_return/low"] < 4 < values["episode_return/high"] <= 8
    assert {seed: values[f"seeds/episode_return/{seed}"] for seed in (7, 3, 12, 4)} == {
        7: 1,
        3: 8,
        12: 3,
        4: 5,
    }
    assert not [name for name in values if "table" in name]  # only single numbers can be plotted
    assert all(isinstance(value, float | int) for value in values.values())


def test_one_seed(fake, tmp_path):
    history = History()
    history.append(10, {"episode_return": np.asarray([8.0])})
    tracker(tmp_path, [5]).log(history, 1.0)
    values = fake.logged[0][1]
    assert values["episode_return/iqm"] == values["seeds/episode_return/5"] == 8


def test_of_many_seeds_the_first_64_are_logged_one_by_one(fake, tmp_path):
    history = History()
    history.append(10, {"episode_return": np.arange(100.0)})
    tracker(tmp_path, range(200, 300)).log(history, 1.0)
    values = fake.logged[0][1]
    assert MOST_SINGLE_SEEDS == 64
    assert [name for name in values if name.startswith("seeds/")] == [
        f"seeds/episode_return/{seed}" for seed in range(200, 264)
    ]
    assert values["seeds/episode_return/263"] == 63
    assert values["episode_return/iqm"] == 49.5  # of all 100


def test_wandb_cannot_start(fake, tmp_path, bad_input):
    def refuse(**options):
        raise RuntimeError("no network")

    fake.init = refuse
    with bad_input("wandb could not start (no network): try --wandb offline"):
        tracker(tmp_path, [0], mode="online")


def test_an_offline_run_can_be_synced(tmp_path):
    """The real wandb, without network: it leaves the folder and the file that `wandb sync` sends."""
    listening = tracker(tmp_path, [7, 3])
    history = History()
    history.append(120, {"episode_return": np.asarray([1.0, 8.0])})
    listening.log(history, 1.0)
    listening.finish()
    sys.modules["wandb"].teardown()  # as at the end of a process: waits until all is written
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (file,) = run.glob("run-*.wandb")
    content = file.read_bytes()
    for part in (b"episode_return/iqm", b"seeds/episode_return/3", b"vdn-matrix", b"learning_rate", b"games"):
        assert part in content


@pytest.mark.parametrize("module", ["jaxmarl_fac.loop", "jaxmarl_fac.tracking", "experiments.train"])
def test_wandb_is_not_imported_without_need(module):
    check = f"import sys, importlib; importlib.import_module({module!r}); sys.exit('wandb' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", check], cwd=root, timeout=120).returncode == 0
