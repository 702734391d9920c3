import csv
import os

import jax
import numpy as np
import pytest
from matplotlib.image import imread

import baselines
import envs
from experiments import plot
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.saved import save_experiment
from jaxmarl_fac.tracking import History

#: Four evaluations of three seeds; the IQM of three is their mean without any dropped.
RETURNS = np.array([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [3.0, 3.0, 3.0], [6.0, 3.0, 9.0]])


def experiment(algo="vdn", env="matrix-qtran", **changed):
    whole = {
        "algorithm": baselines.make(algo),
        "environment": envs.make(env),
        "seeds": (0, 1, 2),
        "env_steps": 30,
    }
    return Experiment(**{**whole, "evaluations": 3, **changed})


def batch_of(games):
    return jax.tree.map(lambda leaf: np.stack([leaf] * games), envs.make("matrix-qtran"))


def kept(folder, run=None, returns=RETURNS, steps=(0, 10, 20, 30), **metrics):
    """A folder as train.py leaves it."""
    folder.mkdir()
    save_experiment(run or experiment(), folder / "experiment.json")
    history = History()
    for index, (at, row) in enumerate(zip(steps, returns, strict=False)):
        history.append(at, {"episode_return": row, **{name: rows[index] for name, rows in metrics.items()}})
    history.save(folder / "metrics.npz")
    return str(folder)


def drawn(*flags, out):
    """The rows of the CSV that the command writes, by curve."""
    assert plot.main([*flags, "--out", str(out)]) == 0
    with open(out, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: [row for row in rows if row["curve"] == name]
        for name in dict.fromkeys(r["curve"] for r in rows)
    }


def numbers(rows, column="iqm"):
    return [float(row[column]) for row in rows]


def test_the_numbers_behind_the_picture(tmp_path, capsys):
    run = kept(tmp_path / "run")
    (rows,) = drawn(run, out=tmp_path / "curves.csv").values()
    assert numbers(rows) == [0, 1, 3, 6]
    assert numbers(rows, "env_steps") == [0, 10, 20, 30]
    assert {row["seeds"] for row in rows} == {"3"}
    assert numbers(rows, "low")[2:] == [3, 3] and numbers(rows, "high")[2:] == [3, 9]
    assert capsys.readouterr().out.splitlines()[0].split() == (
        ["vdn", "3", "seed(s)", "30", "of", "30", "steps", "6", "[3,", "9]"]
    )


def test_runs_of_different_lengths_are_compared_and_unfinished_ones_marked(tmp_path, capsys):
    one = kept(tmp_path / "one")
    two = kept(tmp_path / "two", experiment("qmix", seeds=(5,)), RETURNS[:2, :1])
    rows = drawn(one, two, out=tmp_path / "curves.csv")
    assert {name: len(found) for name, found in rows.items()} == {"vdn": 4, "qmix": 2}
    said = capsys.readouterr()
    assert "qmix, unfinished" in said.out and "vdn, unfinished" not in said.out
    assert said.err == ""
    for suffix, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        out = tmp_path / "new" / f"curves{suffix}"
        assert plot.main([one, two, "--out", str(out)]) == 0
        assert out.read_bytes().startswith(magic)
    assert imread(out.with_suffix(".png")).shape[1] > 800


def test_a_run_is_only_read(tmp_path):
    run = tmp_path / "run"
    kept(run)
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    run.chmod(0o555)
    drawn(str(run), out=tmp_path / "curves.csv")
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_a_reward_per_agent_gives_a_curve_per_agent(tmp_path):
    pair = kept(
        tmp_path / "pair",
        experiment("pr2-q", "matrix-thesis-zero-sum"),
        np.stack([RETURNS, -RETURNS], axis=-1),
    )
    rows = drawn(pair, out=tmp_path / "curves.csv")
    assert {name: numbers(found)[-1] for name, found in rows.items()} == {
        "pr2-q, agent 1": 6,
        "pr2-q, agent 2": -6,
    }


def test_a_batch_of_games_gives_a_curve_per_game(tmp_path):
    run = experiment(environment=batch_of(2), games=2)
    folder = kept(tmp_path / "batch", run, np.concatenate([RETURNS, 10 * RETURNS], axis=1))
    rows = drawn(folder, out=tmp_path / "curves.csv")
    assert {name: numbers(found)[-1] for name, found in rows.items()} == {"vdn, game 0": 6, "vdn, game 1": 60}


def test_names_in_the_legend(tmp_path, capsys):
    one, two = kept(tmp_path / "one"), kept(tmp_path / "two")
    other = kept(tmp_path / "other", experiment(env="matrix-qplex"))
    changed = kept(tmp_path / "changed", experiment(environment=envs.make("two-step").replace()))
    assert list(drawn(one, two, out=tmp_path / "c.csv")) == [f"vdn ({one})", f"vdn ({two})"]
    assert list(drawn(one, two, "--labels", "a", "b, c", out=tmp_path / "c.csv")) == ["a", "b, c"]
    assert capsys.readouterr().err == ""
    assert list(drawn(one, other, changed, out=tmp_path / "c.csv")) == [
        *("vdn on matrix-qtran", "vdn on matrix-qplex", "vdn on two-step")
    ]
    assert (
        capsys.readouterr().err == "the runs are on different games: matrix-qtran, matrix-qplex, two-step\n"
    )


def test_any_name_can_be_drawn(tmp_path):
    folders = [kept(tmp_path / name) for name in ("a$b$c", os.fsdecode(b"\xff"), "_d")]
    assert plot.main([*folders, "--out", str(tmp_path / "curves.png")]) == 0
    assert plot.main([*folders, "--labels", "_a", "$", "b{", "--out", str(tmp_path / "curves.png")]) == 0


def test_smoothing_is_the_mean_over_neighbouring_evaluations_of_each_seed(tmp_path):
    run = kept(tmp_path / "run")
    (rows,) = drawn(run, "--smooth", "3", out=tmp_path / "curves.csv").values()
    assert numbers(rows) == pytest.approx([1 / 2, 4 / 3, 10 / 3, 9 / 2])
    (rows,) = drawn(run, "--smooth", str(10**12), out=tmp_path / "curves.csv").values()
    assert numbers(rows) == pytest.approx([10 / 4] * 4)
    gap = np.where(np.arange(4)[:, None] == 0, np.nan, RETURNS)
    np.testing.assert_allclose(plot.smoothed(gap, 3)[:, 0], [np.nan, 3, 4, 4.5])


def test_losses_before_the_first_update_are_left_out(tmp_path):
    loss = np.where(np.arange(4)[:, None] == 0, np.nan, RETURNS)
    run = kept(tmp_path / "run", loss=loss)
    (rows,) = drawn(run, "--metric", "loss", out=tmp_path / "curves.csv").values()
    assert [row["iqm"] for row in rows] == ["", "1.0", "3.0", "6.0"]
    assert plot.main([run, "--metric", "loss", "--out", str(tmp_path / "curves.png")]) == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "give the folder of at least one run"),
        (["RUN", "RUN"], "the same folder is given twice"),
        (["RUN", "RUN/"], "the same folder is given twice"),
        (["missing"], "there is no missing/experiment.json: give the folder of a run"),
        (["RUN", "--metric", "wins"], "no metric 'wins' to plot: choose one of episode_return, loss"),
        (["RUN", "--metric", "table"], "no metric 'table' to plot"),
        (["RUN", "--metric", "env_steps"], "no metric 'env_steps'"),
        (["RUN", "--out", "curves.svg"], "--out curves.svg must end in .png, .pdf or .csv"),
        (["RUN", "--out", "curves"], "must end in"),
        (["RUN", "--out", "/proc/x/curves.png"], "cannot be written"),
        (
            ["RUN", "--labels", "a", "b"],
            "--labels needs 1 different name(s), one for each run, not 2 (a, b)",
        ),
        (["RUN", "--smooth", "0"], "--smooth must be at least 1, not 0"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, bad_input, flags, said):
    run = kept(tmp_path / "run", loss=RETURNS, table=np.zeros((4, 3, 3, 3)))
    monkeypatch.chdir(tmp_path)
    with bad_input(said):
        plot.main([flag.replace("RUN", run) for flag in flags])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("content", [b"", b"x", b"\x93NUMPY", b"PK\x03\x04 a broken zip", None])
def test_damaged_metrics(tmp_path, bad_input, content):
    run = tmp_path / "run"
    kept(run)
    path = run / "metrics.npz"
    if content is None:
        np.savez(path, env_steps=np.arange(4), episode_return=np.zeros((4, 7)))
    else:
        path.write_bytes(content)
    with bad_input(f"{path} is damaged"):
        plot.main([str(run), "--out", str(tmp_path / "c.png")])
    path.unlink()
    with bad_input(f"there is no {path} yet"):
        plot.main([str(run), "--out", str(tmp_path / "c.png")])


def test_more_curves_than_can_be_told_apart_are_refused(tmp_path, bad_input):
    folder = kept(
        tmp_path / "batch", experiment(environment=batch_of(29), games=29, seeds=(0,)), np.zeros((4, 29))
    )
    with bad_input("29 curves are too many to tell apart: draw at most 28"):
        plot.main([folder, "--out", str(tmp_path / "c.png")])
