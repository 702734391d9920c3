import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxmarl_fac.statistics import bootstrap_interval
from jaxmarl_fac.tracking import MAX_SINGLE_SEEDS, RUN_ID_FILE, History, WandbTracker

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


def history_of(*steps, **metrics):
    """The same metrics at each of the steps."""
    history = History()
    for step in steps:
        history.append(step, metrics or {"q": np.ones(1)})
    return history


def tracker(tmp_path, seeds, mode="offline", history=None, **options):
    filed = {"project": "games", "group": "vdn-matrix", "tags": ("vdn", "matrix"), "name": "vdn on matrix"}
    listening = WandbTracker(mode, {"learning_rate": 0.5}, seeds, **filed | options, out=tmp_path)
    listening.start(history or History())
    return listening


def test_how_a_run_is_filed(fake_wandb, tmp_path):
    tracker(tmp_path, [0]).finish()
    options = fake_wandb.options
    assert (options["mode"], options["project"], options["group"]) == ("offline", "games", "vdn-matrix")
    assert options["tags"] == ["vdn", "matrix"]
    assert options["config"] == {"learning_rate": 0.5}
    assert options["name"] == "vdn on matrix"
    assert options["dir"] == str(tmp_path)
    assert (options["id"], options["resume"]) == ((tmp_path / RUN_ID_FILE).read_text(), "allow")
    assert fake_wandb.exit_codes == [0]


def test_what_is_logged(fake_wandb, tmp_path):
    """IQM, interval and every seed, on the axis of environment steps."""
    listening = tracker(tmp_path, [7, 3, 12, 4])
    history = History()
    returns = np.asarray([1.0, 8, 3, 5])
    history.append(0, {"episode_return": returns * 0, "loss": np.full(4, np.nan)})
    listening.log(history, 1.5)
    history.append(500, {"episode_return": returns, "loss": returns / 2, "table": np.ones((4, 2, 2))})
    listening.log(history, 4.5)

    first, second = fake_wandb.logged
    assert [step for step, _ in fake_wandb.logged] == [0, 500]
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


def test_one_seed(fake_wandb, tmp_path):
    history = History()
    history.append(10, {"episode_return": np.asarray([8.0])})
    tracker(tmp_path, [5]).log(history, 1.0)
    values = fake_wandb.logged[0][1]
    assert values["episode_return/iqm"] == values["seeds/episode_return/5"] == 8


def test_of_many_seeds_the_first_64_are_logged_one_by_one(fake_wandb, tmp_path):
    history = History()
    history.append(10, {"episode_return": np.arange(100.0)})
    tracker(tmp_path, range(200, 300)).log(history, 1.0)
    values = fake_wandb.logged[0][1]
    assert MAX_SINGLE_SEEDS == 64
    assert [name for name in values if name.startswith("seeds/")] == [
        f"seeds/episode_return/{seed}" for seed in range(200, 264)
    ]
    assert values["seeds/episode_return/263"] == 63
    assert values["episode_return/iqm"] == 49.5  # of all 100


def test_rewards_per_agent(fake_wandb, tmp_path):
    returns = np.asarray([[1.0, -1], [3, -3], [np.nan, 0]])
    tracker(tmp_path, [7, 3]).log(history_of(10, episode_return=returns[:2]), 1.0)
    values = fake_wandb.logged[0][1]
    assert (values["episode_return/1/iqm"], values["episode_return/2/iqm"]) == (2, -2)
    assert (values["seeds/episode_return/1/3"], values["seeds/episode_return/2/3"]) == (3, -3)
    assert "episode_return/iqm" not in values
    tracker(tmp_path, [7, 3, 4]).log(history_of(10, episode_return=returns), 1.0)
    assert "episode_return/2/iqm" in fake_wandb.logged[1][1]
    assert "episode_return/1/iqm" not in fake_wandb.logged[1][1]  # one seed of it is not finite


def test_after_a_stop_the_run_is_the_same_and_its_history_has_no_hole(fake_wandb, tmp_path):
    """W&B had lost the evaluation at 20 when the process was killed."""
    first = tracker(tmp_path, [0])
    first.log(history_of(0), 1.0)
    first.log(history_of(0, 10), 2.0)
    first.finish(1)
    run_id = fake_wandb.options["id"]
    fake_wandb.logged.clear()
    fake_wandb.starting_step = 11
    second = tracker(tmp_path, [0], history=history_of(0, 10, 20))
    assert fake_wandb.options["id"] == run_id
    assert [step for step, _ in fake_wandb.logged] == [20]
    second.log(history_of(0, 10, 20, 30), 4.0)
    assert [(step, values.get("seconds")) for step, values in fake_wandb.logged] == [(20, None), (30, 4.0)]


def test_after_a_stop_w_and_b_is_not_sent_what_it_has(fake_wandb, tmp_path):
    """The kill came after the log at 20 and before its checkpoint; W&B refuses steps that go back."""
    fake_wandb.starting_step = 21
    listening = tracker(tmp_path, [0], history=history_of(0, 10))
    listening.log(history_of(0, 10, 20), 3.0)
    assert fake_wandb.logged == []
    listening.log(history_of(0, 10, 20, 30), 4.0)
    assert [step for step, _ in fake_wandb.logged] == [30]


def test_the_id_that_the_agent_has_chosen_counts(fake_wandb, tmp_path, monkeypatch):
    tracker(tmp_path, [0]).finish()
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    tracker(tmp_path, [0]).finish()
    assert fake_wandb.options["id"] == "agents"
    monkeypatch.delenv("WANDB_RUN_ID")
    tracker(tmp_path, [0])  # by hand, after the agent has gone
    assert fake_wandb.options["id"] == "agents"


def test_tags_and_names_of_any_length(fake_wandb, tmp_path):
    path = f"{'deep/' * 40}coord.json"
    tracker(tmp_path, [0], tags=("vdn", path, "", " ", "vdn ", "x" * 64), group=path, name=f"vdn-{path}")
    tags = fake_wandb.options["tags"]
    assert tags == ["vdn", tags[1], "x" * 64]
    assert len(tags[1]) == 64
    assert tags[1].startswith("deep/") and tags[1].endswith("/deep/coord.json")
    for name in ("group", "name"):
        assert len(fake_wandb.options[name]) == 128
        assert fake_wandb.options[name].endswith("/deep/coord.json")


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("online", "wandb could not start (no network): try --wandb offline"),
        ("offline", "wandb could not start (no network)"),
    ],
)
def test_wandb_cannot_start(fake_wandb, tmp_path, bad_input, mode, said):
    def refuse(**options):
        raise RuntimeError("no\n network")

    fake_wandb.init = refuse
    with bad_input(said):
        tracker(tmp_path, [0], mode)


def test_a_folder_that_wandb_cannot_name(fake_wandb, tmp_path, bad_input):
    """Of bytes that are no text; wandb itself says so in dozens of lines."""
    with bad_input("wandb needs a folder whose name is plain text, not 'run\\udcff'"):
        tracker(Path("run\udcff"), [0])


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


@pytest.mark.slow
@pytest.mark.parametrize("module", ["jaxmarl_fac.loop", "jaxmarl_fac.tracking", "experiments.train"])
def test_wandb_is_not_imported_without_need(module):
    check = f"import sys, importlib; importlib.import_module({module!r}); sys.exit('wandb' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", check], cwd=root, timeout=120).returncode == 0
