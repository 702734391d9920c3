"""What a comparison is made of, its JSON for marl-eval, and its page."""

import json

import numpy as np
import pytest

from jaxmarl_fac.report.comparison import GRID, Comparison, FinishedRun, Yardstick, complete_part, yardstick
from jaxmarl_fac.report.comparison_page import write_comparison
from jaxmarl_fac.report.marl_eval import raw_data
from jaxmarl_fac.report.styles import label_of

STEPS = np.array([0, 10, 20])


def run(algorithm, task, last=(8.0, 6.0), steps=STEPS, seconds=2.0):
    """Returns that start at 0, jump to half of the last ones, and end at these."""
    last = np.asarray(last, float)
    returns = np.stack([0 * last, last / 2, last])
    elapsed = np.array([0.0, 1.0, 2.0])
    return FinishedRun(algorithm, task, tuple(range(len(last))), steps, returns, seconds, elapsed)


def comparison(*runs, algorithms=("vdn", "qmix"), tasks=("a", "b"), **more):
    by_pair = {(each.algorithm, each.task): each for each in runs}
    return Comparison(
        tuple(algorithms), tuple(tasks), by_pair, {task: Yardstick(-2.0, 8.0, True) for task in tasks}, **more
    )


def test_yardsticks():
    runs = [run("vdn", "a", (1.0, 3.0)), run("qmix", "a", (5.0, 7.0))]
    assert yardstick(runs, random=-1.0, optimum=9.0) == Yardstick(-1.0, 9.0, True)
    assert yardstick(runs, random=None, optimum=None) == Yardstick(2.0, 6.0, False)
    assert yardstick(runs, random=9.0, optimum=9.0) == Yardstick(2.0, 6.0, False)
    np.testing.assert_allclose(Yardstick(2.0, 6.0, False).normalise(np.array([2.0, 5.0])), [0, 0.75])
    np.testing.assert_allclose(Yardstick(3.0, 3.0, False).normalise(np.array([3.0])), [1])


def test_a_whole_comparison_is_complete():
    part = complete_part(comparison(*(run(name, task) for name in ("vdn", "qmix") for task in "ab")))
    assert part.algorithms == ("vdn", "qmix") and part.tasks == ("a", "b") and part.seeds == 2
    np.testing.assert_allclose(part.scores["vdn"], [[1.0, 1.0], [0.8, 0.8]])
    curve = part.curves["qmix"][:, 0, 1]  # from 0 over 4 to 8, from random play at -2 to the optimum of 8
    assert curve.shape == (GRID,)
    np.testing.assert_allclose(curve[[0, 5, 10, 20]], [0.2, 0.4, 0.6, 1.0])


def test_the_largest_complete_part():
    everywhere = [run(name, task) for name in ("vdn", "qmix") for task in "abc"]
    data = comparison(*everywhere, run("iql", "a"), algorithms=("vdn", "iql", "qmix"), tasks=("a", "b", "c"))
    part = complete_part(data)
    assert (part.algorithms, part.tasks) == (("vdn", "qmix"), ("a", "b", "c"))
    many = [run(name, "a") for name in ("iql", "coma", "dop")]
    data = comparison(
        *many, run("vdn", "a"), run("vdn", "b"), algorithms=("vdn", "iql", "coma", "dop"), tasks=("a", "b")
    )
    assert complete_part(data).algorithms == ("vdn", "iql", "coma", "dop")


def test_runs_that_are_not_finite_are_no_part_of_it():
    data = comparison(run("vdn", "a", (np.nan, 1.0)), run("qmix", "a"), tasks=("a",))
    assert complete_part(data).algorithms == ("qmix",)
    assert complete_part(comparison(run("vdn", "a", (np.nan, 1.0)), tasks=("a",))) is None


def test_unequal_runs_are_cut_to_the_shortest():
    longer = run("qmix", "a", (8.0, 6.0, 4.0), steps=np.array([0, 20, 40]))
    part = complete_part(comparison(run("vdn", "a"), longer, tasks=("a",)))
    assert part.seeds == 2
    assert part.scores["qmix"].shape == (2, 1)
    # After 20 steps, where the shorter run ends, the longer one is at half of its last return of 8.
    np.testing.assert_allclose(part.curves["qmix"][-1, 0, 0], (4 + 2) / 10)


def whole(**more):
    runs = [
        run(name, task, np.arange(4.0) + shift)
        for name, shift in (("vdn", 0), ("qmix", 2))
        for task in ("a", "b")
    ]
    return comparison(*runs, run("iql", "b"), algorithms=("vdn", "qmix", "iql"), **more)


def test_marl_evals_documented_format():
    """Environment, task, algorithm, run, step; every run as many steps, absolute metrics at last."""
    data = whole()
    raw = json.loads(json.dumps(raw_data(data, complete_part(data)), allow_nan=False))
    assert list(raw) == ["jaxmarl_fac", "jaxmarl_fac_others"]
    for tasks in raw.values():
        assert len({tuple(runs) for runs in tasks.values()}) == 1
        for algorithms in tasks.values():
            for runs in algorithms.values():
                for steps in runs.values():
                    assert list(steps) == ["step_0", "step_1", "step_2", "absolute_metrics"]
                    for name, step in steps.items():
                        assert isinstance(step["return"], list) and len(step["return"]) == 1
                        assert (name == "absolute_metrics") or isinstance(step["step_count"], int)
    step = raw["jaxmarl_fac"]["a"]["qmix"]["seed_3"]["step_1"]
    assert step == {"step_count": 10, "elapsed_time": 1.0, "return": [2.5]}


def test_marl_eval_itself_reads_it():
    """Its loader normalises the returns of a task to [0, 1] over all of its runs and steps."""
    tools = pytest.importorskip(
        "marl_eval.utils.data_processing_utils",
        reason="marl-eval (pip install id-marl-eval) is not installed",
    )
    data = whole()
    raw = raw_data(data, complete_part(data))
    processed = tools.data_process_pipeline(raw_data=raw, metrics_to_normalize=["return"])
    last, curves = tools.create_matrices_for_rliable(processed, "jaxmarl_fac", ["return"])
    # It adds a little to the range that it divides by.
    np.testing.assert_allclose(last["mean_norm_return"]["qmix"][:, 0], (np.arange(4) + 2) / 5, rtol=1e-6)
    assert curves["mean_norm_return"]["vdn"].shape == (4, 2, 3)


def test_the_page_says_what_is_missing(tmp_path):
    data = whole(left_out={("iql", "a"): "it <cannot>"}, failed={("coma", "a"): "diverged"})
    page = write_comparison(data, "A & B", "Three algorithms.", tmp_path).read_text(encoding="utf-8")
    assert "A &amp; B" in page and "it &lt;cannot&gt;" in page and "diverged" in page
    assert f"Not in the aggregates, because they have no run on some tasks: {label_of('iql')}." in page
    assert "Runs have 2 to 4 seeds; aggregates use the first 4" in page
    numbers = json.loads((tmp_path / "comparison.json").read_text())
    assert numbers["scores"]["IQM"]["qmix"]["value"] == pytest.approx((3.5 + 2) / 10)


def test_a_page_of_one_run(tmp_path):
    page = write_comparison(
        comparison(run("vdn", "a", (3.0,), seconds=None), algorithms=("vdn",), tasks=("a",)),
        "One",
        "",
        tmp_path,
    ).read_text(encoding="utf-8")
    assert "Probability of improvement" not in page and "Wall-clock" not in page


def test_a_page_of_runs_that_are_not_finite(tmp_path):
    data = comparison(run("vdn", "a", (np.nan, 1.0)), algorithms=("vdn",), tasks=("a",))
    page = write_comparison(data, "None", "", tmp_path).read_text(encoding="utf-8")
    assert "No run is finite" in page and 'id="ranking"' not in page
