"""Comparisons from the command line: plans, bad input, merged folders, a killed run, and what is written."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import baselines
import envs
from envs.errors import BadInputError
from experiments import compare
from experiments.compare_plan import make_plan, read_overrides
from experiments.compare_runs import Stopwatch, folder_of, merged, read_folders
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.files import write_text
from jaxmarl_fac.saved import save_experiment
from jaxmarl_fac.tracking import History

#: Tables, whose programs compile in a second.
TINY = ["--algos", "iql-tabular", "hysteretic-tabular", "--envs", "matrix-qtran", "matrix-penalty"]
RUN = [*TINY, "--seeds", "2", "--env-steps", "200"]


def plan(algos, games, overrides=None, scale="quick", env_steps=None):
    return make_plan(algos, games, 2, scale, env_steps, read_overrides(overrides))


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def kept(folder, algo="vdn", env="matrix-qtran", seeds=(0, 1), returns=(0.0, 8.0), **changed):
    """A finished run as train.py leaves it, with returns that every seed has at its evaluations."""
    folder.mkdir(parents=True)
    whole = {"algorithm": baselines.make(algo), "environment": envs.make(env), "seeds": seeds}
    experiment = Experiment(**{**whole, "env_steps": 30, "evaluations": len(returns) - 1, **changed})
    save_experiment(experiment, folder / "experiment.json")
    history = History()
    for at, value in zip(np.linspace(0, 30, len(returns)), returns, strict=True):
        history.append(
            int(at), {"episode_return": np.full(experiment.lanes, value) + np.arange(experiment.lanes)}
        )
    history.save(folder / "metrics.npz")
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A comparison that is stopped in its second pair, and then goes on."""
    out = tmp_path_factory.mktemp("compare")
    log, steps = Stopwatch.log, []

    def stop_at_the_third_pair(self, history, seconds):
        log(self, history, seconds)
        steps.append((self._pair.name, history.last_env_steps))
        if len({name for name, _ in steps}) == 3 and history.last_env_steps >= 100:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Stopwatch, "log", stop_at_the_third_pair)
        first = compare.main([*RUN, "--out", str(out)])
    before = list(steps)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Stopwatch, "log", lambda *args: (log(*args), steps.append(args[1].last_env_steps)))
        second = compare.main([*RUN, "--out", str(out)])
    return out, first, before, second, steps[len(before) :]


def test_a_stopped_comparison_goes_on(done):
    out, first, before, second, after = done
    assert (first, second) == (130, 0)
    assert before[-1] == ("iql-tabular on matrix-penalty", 100)
    # The third pair goes on behind its hundredth step, the fourth begins; the others are not trained again.
    points = list(range(10, 201, 10))
    assert after == [*points[10:], 0, *points]
    record = json.loads((out / "runs" / "matrix-penalty_iql-tabular" / "compare.json").read_text())
    elapsed = [record["elapsed"][str(at)] for at in (0, *points)]
    assert elapsed == sorted(elapsed) and record["seconds"] >= elapsed[-1]


def test_what_is_written(done):
    out = done[0]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 5 and "http" not in page.split("<body>")[1].split("img")[0]
    assert "less than the paper of the game" in page and "matrix-qtran (200 of 20,000)" in page
    for words in ("IQM", "optimality gap", "average rank", "Probability of improvement", "Wall-clock"):
        assert words in page
    numbers = json.loads((out / "comparison.json").read_text())
    assert numbers["tasks"] == ["matrix-qtran", "matrix-penalty"]
    assert numbers["normalised_by"]["matrix-qtran"]["high"] == 8
    assert set(numbers["scores"]["IQM"]) == {"iql-tabular", "hysteretic-tabular"}
    chances = numbers["probability_of_improvement"]
    one, other = chances.values()
    assert one["value"] + other["value"] == pytest.approx(1)
    run = json.loads((out / "marl_eval.json").read_text())["jaxmarl_fac"]["matrix-penalty"]["iql-tabular"][
        "seed_1"
    ]
    assert run["step_20"]["step_count"] == 200 and run["step_20"]["elapsed_time"] > 0
    assert len(run["step_20"]["return"]) == len(run["absolute_metrics"]["return"]) == 1


@pytest.mark.slow
def test_a_killed_comparison_goes_on_with_the_same_numbers(tmp_path):
    command = [sys.executable, str(Path(compare.__file__)), *TINY, "--seeds", "2", "--env-steps", "20000"]
    environment = {**os.environ, "PYTHONPATH": str(Path(compare.__file__).parents[1])}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with subprocess.Popen([*command, "--out", str(killed)], env=environment) as child:
        second = killed / "runs" / "matrix-qtran_hysteretic-tabular"
        while not list(second.glob("checkpoints/*")):
            assert child.poll() is None
            time.sleep(0.01)
        child.kill()
    assert not (killed / "report.html").exists()
    for out in (killed, whole):
        subprocess.run([*command, "--out", str(out)], env=environment, check=True)
    numbers, expected = (
        json.loads((out / "comparison.json").read_text())["last_returns"] for out in (killed, whole)
    )
    assert numbers == expected and len(numbers) == 4


#: Run by an interpreter that has marl-eval: its own loader, then what its plots are made from.
LOADER = """
import json, sys
from marl_eval.utils.data_processing_utils import create_matrices_for_rliable, data_process_pipeline
processed = data_process_pipeline(json.load(open(sys.argv[1])), ["return"])
matrices, _ = create_matrices_for_rliable(processed, "jaxmarl_fac", ["return"])
by_algorithm = matrices["mean_norm_return"]
print(json.dumps({name: matrix.tolist() for name, matrix in by_algorithm.items()}))
"""


@pytest.mark.skipif(
    "MARL_EVAL" not in os.environ,
    reason="name a Python that has marl-eval, which needs a pandas of its own: see CONTRIBUTING.md",
)
def test_marl_eval_reads_the_numbers(done):
    """As its users do: absolute metrics, normalised to the range seen, of every seed and task."""
    path = done[0] / "marl_eval.json"
    command = [os.environ["MARL_EVAL"], "-c", LOADER, str(path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(printed.splitlines()[-1])
    assert set(found) == {"iql-tabular", "hysteretic-tabular"}
    raw = json.loads(path.read_text())["jaxmarl_fac"]
    for column, task in enumerate(raw):
        best = {
            name: [seed["absolute_metrics"]["return"][0] for seed in seeds.values()]
            for name, seeds in raw[task].items()
        }
        every = [
            step["return"][0]
            for seeds in raw[task].values()
            for seed in seeds.values()
            for step in seed.values()
        ]
        low, high = min(every), max(every)
        for name, values in best.items():
            expected = [(value - low) / (high - low) for value in values]
            np.testing.assert_allclose(np.asarray(found[name])[:, column], expected, atol=1e-5)


@pytest.fixture
def compared(monkeypatch):
    """The comparisons that would have been drawn and written."""
    kept = []
    monkeypatch.setattr(compare, "write_comparison", lambda comparison, *rest: kept.append(comparison))
    return kept


def test_a_finished_comparison_is_only_read(done, monkeypatch, capsys, compared):
    monkeypatch.setattr("experiments.compare_runs.train", None)
    assert compare.main([*RUN, "--out", str(done[0])]) == 0
    assert capsys.readouterr().out.count("last return") == len(compared[0].runs) == 4


def test_other_settings_in_its_folder_are_refused_before_training(done, monkeypatch):
    monkeypatch.setattr("experiments.compare_runs.train", None)
    out = ["--out", str(done[0])]
    with pytest.raises(BadInputError, match=r"holds a run with 2 seed.* not lowered to 1 and 200"):
        compare.main([*TINY, "--seeds", "1", "--env-steps", "200", *out])
    changed = written(done[0] / "o.yaml", "algos: {iql-tabular: {epsilon_end: 0.5}}")
    with pytest.raises(BadInputError, match=r"holds another experiment .*differs in algorithm"):
        compare.main([*RUN, "--overrides", str(changed), *out])


def test_variants_are_not_compared(tmp_path, bad_input):
    folder = kept(tmp_path / "run", variants=(("learning_rate", (0.1, 0.2)),))
    with bad_input("holds variants of an algorithm: only runs with one setting are compared"):
        read_folders([folder], ())
    file = written(tmp_path / "o.yaml", "algos: {iql-tabular: {step_size: [0.1, 0.2]}}")
    with bad_input("step_size must be one number: variants are not compared"):
        plan(["iql-tabular"], ["matrix-qtran"], file)


def test_runs_made_elsewhere_are_merged(done, tmp_path, capsys):
    elsewhere = kept(tmp_path / "elsewhere", "vdn", returns=(0.0, 4.0, 7.0), evaluations=2)
    out = tmp_path / "merged"
    assert compare.main(["--from", str(done[0]), str(elsewhere), "--out", str(out)]) == 0
    numbers = json.loads((out / "comparison.json").read_text())
    assert numbers["algorithms"] == ["hysteretic-tabular", "iql-tabular", "vdn"]
    # VDN has none on matrix-penalty, so the aggregates are of the other two on both tasks.
    assert numbers["aggregated"]["algorithms"] == ["hysteretic-tabular", "iql-tabular"]
    assert numbers["last_returns"]["vdn on matrix-qtran"]["value"] == pytest.approx(7.5)
    data = json.loads((out / "marl_eval.json").read_text())
    assert list(data["jaxmarl_fac_others"]["matrix-qtran"]) == ["vdn"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Not in the aggregates, because they have no run on some tasks: VDN" in page


def test_seeds_of_one_pair_are_put_together(tmp_path):
    kept(tmp_path / "a" / "one", seeds=(0, 1))
    kept(tmp_path / "a" / "two", seeds=(1, 2, 3))
    run = merged(read_folders([tmp_path / "a"]))["vdn", "matrix-qtran"]
    assert run.seeds == (0, 1, 2, 3)
    np.testing.assert_array_equal(run.last, [8, 9, 9, 10])


def test_plans_leave_out_what_does_not_work():
    found = plan(["vdn", "ddpg", "pr2-q"], ["matrix-qtran", "matrix-pr2", "differential"])
    assert [(pair.algorithm, pair.env) for pair in found.pairs] == [
        ("vdn", "matrix-qtran"),
        ("pr2-q", "matrix-qtran"),
        ("ddpg", "differential"),
    ]
    assert "continuous" in found.left_out["vdn", "differential"]
    assert "reward per agent" in found.left_out["pr2-q", "matrix-pr2"]
    assert all("\n" not in reason for reason in found.left_out.values())


@pytest.mark.parametrize("scale, steps", [("smoke", None), ("quick", 20_000), ("paper", 20_000)])
def test_scales(scale, steps):
    vdn, tables = plan(["vdn", "iql-tabular"], ["matrix-qtran"], scale=scale).pairs
    assert vdn.experiment.env_steps == tables.experiment.env_steps == (steps or vdn.experiment.env_steps)
    assert vdn.experiment.schedule.updates(vdn.experiment.iterations) >= 4


def test_overrides_the_nearest_counts(tmp_path):
    path = written(
        tmp_path / "o.yaml",
        """
algos:
  qmix: {learning_rate: 1e-3, mixer-embed: 16, num_envs: 2}
  coma: {anything: 1}  # not in this comparison
envs:
  matrix-penalty: {k: -10, learning_rate: 0.002, hidden: [8, 8], env_steps: 5000}
pairs:
  qmix: {matrix-penalty: {learning_rate: 3e-3}}
""",
    )
    found = plan(["qmix", "iql-tabular"], ["matrix-penalty", "matrix-qtran"], path, env_steps=3000)
    settings = {(pair.algorithm, pair.env): pair.experiment for pair in found.pairs}
    special, plain = settings["qmix", "matrix-penalty"], settings["qmix", "matrix-qtran"]
    assert special.algorithm.optimiser.learning_rate == 0.003
    assert plain.algorithm.optimiser.learning_rate == 0.001
    assert special.algorithm.agents.hidden == (8, 8) and special.algorithm.method.mixing.mixer_embed == 16
    assert special.environment.payoff.min() == -10
    assert (special.env_steps, plain.env_steps, special.num_envs) == (5000, 3000, 2)
    assert settings["iql-tabular", "matrix-penalty"].env_steps == 5000


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "give at least one id with --algos"),
        (["--algos", "vdn"], "one with --envs"),
        (["--algos", "vdn2", "--envs", "two-step"], "unknown algorithm 'vdn2'"),
        (["--algos", "vdn", "--envs", "three-step"], "unknown environment 'three-step'"),
        (["--algos", "vdn", "--envs", "differential"], "no pair works: vdn on differential: .*continuous"),
        ([*TINY, "--seeds", "0"], "number of seeds must be at least 1"),
        ([*TINY, "--scale", "quick", "--env-steps", "9"], "either --scale or --env-steps"),
        ([*TINY, "--env-steps", "5"], "20 evaluations do not fit"),
        (["--algos", "vdn", "--envs", "two-step", "--env-steps", "20"], "nothing would be learned within 20"),
        ([*TINY, "--overrides", "missing.yaml"], "overrides missing.yaml cannot be read"),
        (["--from", "missing"], "there is no run in missing"),
    ],
)
def test_bad_flags(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.compare_runs.train", None)
    with pytest.raises(BadInputError, match=message) as refused:
        compare.main(flags)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flags", [["--seeds", "3"], ["--env-steps", "9"], ["--scale", "smoke"]])
def test_flags_of_training_without_pairs_to_train(flags, tmp_path):
    kept(tmp_path / "a")
    with pytest.raises(BadInputError, match=f"{flags[0]} is for pairs to train: give --algos and --envs"):
        compare.main(["--from", str(tmp_path / "a"), *flags, "--out", str(tmp_path / "out")])


def test_the_summary_counts_a_seed_once_and_names_every_length(tmp_path):
    kept(tmp_path / "a" / "one", seeds=(0, 1))
    kept(tmp_path / "a" / "two", seeds=(1, 2))
    kept(tmp_path / "a" / "qmix", "qmix", seeds=(0,))
    found = merged(read_folders((tmp_path / "a", tmp_path / "a"), ())).values()
    runs = sorted(found, key=lambda run: len(run.seeds))
    assert [len(run.seeds) for run in runs] == [1, 3]
    longer = [dataclasses.replace(run, env_steps=run.env_steps * (1 + i)) for i, run in enumerate(runs)]
    last = int(longer[0].env_steps[-1])
    told = compare.summary_of(longer)
    assert f"4 training runs with {last + 3 * 2 * last:,} environment steps in all" in told
    assert f"matrix-qtran ({last:,} to {2 * last:,} of" in told


def test_an_override_can_be_none(tmp_path):
    path = written(tmp_path / "o.yaml", "algos: {qmix: {max_grad_norm: null}}\nenvs: null")
    assert read_overrides(path).algos == {"qmix": {"max_grad_norm": None}}


@pytest.mark.parametrize(
    "text, message",
    [
        ("algos: []", "algos must be names with what belongs to them"),
        ("envs: false", "envs must be names"),
        ("algos: {qmix: []}", "qmix must be names"),
        ("algos: {qmix: {colour: 3}}", "qmix: it has no setting 'colour'"),
        (
            "envs: {two-step: {colour: 3}}",
            "two-step: neither it nor any of the algorithms has a setting 'colour'",
        ),
        ("pairs: {qmix: {two-step: {k: 3}}}", "qmix on two-step: it has no setting 'k'"),
        ("algos: {qmax: {hidden: 3}}", "unknown algorithm 'qmax'"),
        ("envs: {two: {hidden: 3}}", "unknown environment 'two'"),
        ("algorithms: {}", "'algorithms' is not a part of it"),
        ("algos: {qmix: 3}", "qmix must be names with what belongs to them"),
        ("- 3", "the file must be names"),
        ("algos: {qmix: {hidden: {a: 3}}}", "hidden must be a number, text"),
        ("algos: {qmix: {learning_rate: -1}}", "qmix on two-step: .*must be above 0"),
        ("algos: {qmix: {seeds: 4}}", "it has no setting 'seeds'"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_bad_overrides(text, message, tmp_path):
    path = written(tmp_path / "o.yaml", text)
    with pytest.raises(BadInputError, match=message) as refused:
        plan(["qmix"], ["two-step"], path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_folders_of_other_experiments(tmp_path):
    kept(tmp_path / "pair" / "run", "pr2-q", "matrix-thesis-zero-sum")
    with np.load(tmp_path / "pair" / "run" / "metrics.npz") as arrays:
        per_agent = {**arrays, "episode_return": np.stack([arrays["episode_return"]] * 2, axis=-1)}
    np.savez(tmp_path / "pair" / "run" / "metrics.npz", **per_agent)
    kept(tmp_path / "short", evaluations=3)
    write_text(tmp_path / "short" / "experiment.json", _longer(tmp_path / "short"))
    (tmp_path / "text").mkdir()
    write_text(tmp_path / "text" / "experiment.json", "no JSON")
    for name, message in (
        ("pair", "reward per agent"),
        ("short", "at 30 of 90 environment steps: finish it first"),
        ("text", "holds no experiment"),
    ):
        with pytest.raises(BadInputError, match=message):
            read_folders([tmp_path / name])


def test_runs_that_only_share_a_name_are_refused(tmp_path):
    one = kept(tmp_path / "one")
    slower = kept(tmp_path / "slower", algorithm=baselines.make("vdn", learning_rate=1e-5))
    with pytest.raises(BadInputError, match=r"different settings .they differ in algorithm"):
        merged(read_folders([one, slower]))
    flags = [
        "--algos",
        "vdn",
        "--envs",
        "matrix-qtran",
        "--env-steps",
        "2000",
        "--out",
        str(tmp_path / "out"),
    ]
    with pytest.raises(
        BadInputError, match="this comparison have vdn on matrix-qtran with different settings"
    ):
        compare.main([*flags, "--from", str(one)])


def test_a_pair_that_fails_does_not_stop_the_others(done, tmp_path, monkeypatch, capsys, compared):
    def fail(*args, **options):
        raise BadInputError("a checkpoint cannot be written")

    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    shutil.rmtree(out / "runs" / "matrix-qtran_iql-tabular")
    monkeypatch.setattr("experiments.compare_runs.train", fail)
    assert compare.main([*RUN, "--out", str(out)]) == 1
    assert "iql-tabular on matrix-qtran: a checkpoint cannot be written" in capsys.readouterr().err
    (comparison,) = compared
    assert list(comparison.failed) == [("iql-tabular", "matrix-qtran")] and len(comparison.runs) == 3


def test_folder_names_are_safe(tmp_path):
    pair = plan(["iql-tabular"], ["two-step"]).pairs[0]
    assert folder_of(tmp_path, pair).name == "two-step_iql-tabular"


def _longer(folder):
    saved = json.loads((folder / "experiment.json").read_text())
    return json.dumps({**saved, "env_steps": 90})
