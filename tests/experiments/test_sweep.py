import json
import subprocess
import sys
from pathlib import Path

import pytest

from envs.errors import BadInputError
from experiments import sweep

SWEEPS = Path(sweep.__file__).parent / "sweeps"


def test_the_grid_is_the_product_of_its_values():
    runs = list(sweep.choices(sweep.read_sweep(SWEEPS / "learning_rate.yaml"), None, 0))
    assert len(runs) == 12
    assert {(run["algo"], run["learning_rate"]) for run in runs} == {
        (algo, rate) for algo in ("vdn", "qmix", "qtran-base", "qtran-alt") for rate in (1e-4, 5e-4, 2e-3)
    }
    assert all(run["env"] == "matrix-21x21" for run in runs)


def test_random_choices_stay_in_their_ranges_and_follow_the_seed():
    file = sweep.read_sweep(SWEEPS / "qtran_weights.yaml")
    runs = list(sweep.choices(file, None, 0))
    assert len(runs) == 8
    assert all(0.01 <= run[name] <= 10 for run in runs for name in ("opt_weight", "nopt_weight"))
    assert len({run["opt_weight"] for run in runs}) == 8
    assert runs == list(sweep.choices(file, None, 0)) != list(sweep.choices(file, None, 1))


@pytest.mark.slow  # the README's own sweep runs in tests/test_readme.py
def test_a_sweep_runs_here_offline(tmp_path, capfd):
    small = tmp_path / "small.yaml"
    small.write_text(
        "method: grid\nparameters:\n  env: {value: matrix-qtran}\n  algo: {values: [iql, vdn]}\n"
        "  env_steps: {value: 40}\n  evaluations: {value: 2}\n"
    )
    assert sweep.main([str(small), "--out", str(tmp_path / "out")]) == 0
    table = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert sorted(row["algo"] for row in table) == ["iql", "vdn"]
    assert len(list((tmp_path / "out").glob("*/wandb/offline-run-*"))) == 2
    assert "run 2 of 2" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method: bayes\nparameters: {a: {value: 1}}", "method 'bayes': it must be grid or random"),
        ("method: grid", "needs `parameters`"),
        ("a: [", "is not valid YAML"),
        ("method: random\nparameters: {a: {distribution: beta, min: 0, max: 1}}", "distribution 'beta'"),
    ],
)
def test_bad_files(tmp_path, text, said):
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    with pytest.raises(BadInputError, match=said):
        sweep.main([str(file), "--out", str(tmp_path / "out")])


def test_a_missing_file(tmp_path):
    with pytest.raises(BadInputError, match="cannot be read: No such file"):
        sweep.main([str(tmp_path / "none.yaml")])


def test_the_sweep_itself_starts_no_backend():
    """Issue 13, point 16: it would hold a GPU's memory, or the TPU, that its runs need."""
    code = "import sweep, sys; sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(sweep.__file__).parent, check=False)
    assert done.returncode == 0
