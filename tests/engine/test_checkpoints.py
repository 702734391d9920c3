import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import baselines
from envs.matrix_games import matrix_game
from jaxmarl_fac.checkpoints import Checkpoints
from jaxmarl_fac.experiment import Experiment, load_experiment, to_json
from jaxmarl_fac.files import prepare_folder
from jaxmarl_fac.parallel import seed_mesh, seed_sharding, shard
from jaxmarl_fac.tracking import History

EXPERIMENT = Experiment(
    algorithm=baselines.make("vdn"),
    environment=matrix_game([[1, 2], [3, 4]]),
    seeds=(0, 1, 2, 3),
    env_steps=100,
)
LANES = 4


def lanes():
    """What the loop keeps, in small: floats with awkward bits, bytes, flags, and typed keys."""
    rng = np.random.default_rng(0)
    tree = {
        "params": {"kernel": jnp.asarray(rng.normal(size=(LANES, 3, 2)), jnp.float32)},
        "odd": jnp.tile(jnp.asarray([-0.0, 1e-45, jnp.inf, 1 / 3], jnp.float32), (LANES, 1)),
        "buffer": jnp.asarray(rng.integers(256, size=(LANES, 5, 7)), jnp.uint8),
        "stage": jnp.asarray(rng.integers(-128, 128, size=(LANES,)), jnp.int8),
        "flags": jnp.asarray(rng.integers(2, size=(LANES, 2)), bool),
        "key": jax.random.split(jax.random.key(5), LANES),
    }
    return shard(tree, seed_mesh(LANES))


def abstract(tree, sharding):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def history():
    kept = History()
    for steps in (0, 50):
        kept.append(steps, {"episode_return": np.arange(4.0) + steps, "q": np.full((4, 2), np.nan)})
    return kept


def assert_equal_lanes(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with one checkpoint; copy it before changing it."""
    folder = tmp_path_factory.mktemp("written")
    Checkpoints(folder, EXPERIMENT).save(lanes(), 50, history(), 12.5)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    shutil.copytree(written, tmp_path / "run")
    return tmp_path / "run"


def test_the_history_can_be_read_while_the_run_goes_on(folder):
    with np.load(folder / "metrics.npz") as kept:
        assert {name: kept[name].tobytes() for name in kept} == {
            name: rows.tobytes() for name, rows in history().arrays().items()
        }


def restore(folder, sharding=None):
    return Checkpoints(folder, EXPERIMENT).restore(
        abstract(lanes(), sharding or seed_sharding(seed_mesh(LANES)))
    )


def test_round_trip(folder):
    restored, iteration, kept, seconds = restore(folder)
    assert_equal_lanes(restored, lanes())
    assert (iteration, seconds) == (50, 12.5)
    for name, rows in history().arrays().items():
        np.testing.assert_array_equal(kept.arrays()[name], rows)
    assert kept.last_env_steps == 50


@pytest.mark.parametrize("devices", [1, 2])
def test_restored_on_another_number_of_devices(folder, devices):
    """Saved from two."""
    mesh = Mesh(np.asarray(jax.devices()[:devices]), ("seeds",))
    restored, *_ = restore(folder, NamedSharding(mesh, PartitionSpec("seeds")))
    assert_equal_lanes(restored, lanes())
    for leaf in jax.tree.leaves(restored):
        assert leaf.sharding.num_devices == devices


def test_nothing_kept_yet(tmp_path):
    assert restore(tmp_path / "new" / "deep") is None
    assert load_experiment(tmp_path / "new" / "deep" / "experiment.json").seeds == (0, 1, 2, 3)


def test_only_the_last_is_kept(folder):
    checkpoints = Checkpoints(folder, EXPERIMENT)
    for iteration in (60, 70):
        checkpoints.save(
            {**lanes(), "stage": jnp.full((LANES,), iteration, jnp.int8)}, iteration, history(), 20.0
        )
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["70"]
    restored, iteration, _, seconds = restore(folder)
    assert (iteration, seconds) == (70, 20.0)
    assert (restored["stage"] == 70).all()


def test_the_experiment_stands_beside_it(folder):
    record = json.loads((folder / "experiment.json").read_text())
    assert record == json.loads(json.dumps(to_json(EXPERIMENT)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"env_steps": 200}, "it differs in env_steps)"),
        ({"seeds": (0, 1, 2), "root_key": 1}, "it differs in root_key, seeds)"),
        ({"algorithm": baselines.make("vdn", learning_rate=0.1)}, "it differs in algorithm.learning_rate)"),
        ({"algorithm": baselines.make("iql")}, "algorithm.type"),
        ({"environment": matrix_game([[1, 2], [3, 5]])}, "it differs in environment.payoff.data)"),
    ],
)
def test_a_folder_of_another_experiment(bad_input, folder, changes, says):
    with bad_input(says):
        Checkpoints(folder, dataclasses.replace(EXPERIMENT, **changes))
    with bad_input(f"{folder} holds another experiment"):
        Checkpoints(folder, dataclasses.replace(EXPERIMENT, **changes))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00"])
def test_a_record_that_cannot_be_read(bad_input, folder, content):
    (folder / "experiment.json").write_bytes(content)
    with bad_input("experiment.json cannot be read: remove its folder, or choose another"):
        Checkpoints(folder, EXPERIMENT)


@pytest.mark.parametrize("content", [b"[1]", b"5", b"{}"])
def test_a_record_of_something_else(bad_input, folder, content):
    (folder / "experiment.json").write_bytes(content)
    with bad_input("holds another experiment"):
        Checkpoints(folder, EXPERIMENT)


def files_of(folder):
    return sorted(path for path in (folder / "checkpoints").rglob("*") if path.is_file())


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path):
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


def drop(path):
    path.unlink()


@pytest.mark.parametrize("harm", [cut, garble, drop])
def test_a_damaged_checkpoint(bad_input, folder, harm):
    """All files of the arrays' data."""
    data = [path for path in files_of(folder) if path.parent.name == "d" or "ocdbt" in path.name]
    assert data
    for path in data:
        harm(path)
    with bad_input("is damaged and cannot be read"):
        restore(folder)
    with bad_input(str(folder)):
        restore(folder)


@pytest.mark.parametrize(
    "harm", [pytest.param(cut, marks=pytest.mark.slow), garble, pytest.param(drop, marks=pytest.mark.slow)]
)
def test_no_damage_to_any_one_file_passes_for_a_checkpoint(written, tmp_path, harm):
    """With any one file harmed, it is read in full or refused in one line: never wrongly."""
    from_here = [path.relative_to(written) for path in files_of(written)]
    assert len(from_here) > 5
    refused = 0
    for number, path in enumerate(from_here):
        folder = tmp_path / str(number)
        shutil.copytree(written, folder)
        harm(folder / path)
        try:
            found = restore(folder)
        except Exception as error:
            assert type(error).__name__ == "BadInputError", (path, error)
            assert "\n" not in str(error)
            refused += 1
        else:
            assert found is not None, path
            assert_equal_lanes(found[0], lanes())
            assert found[1] == 50
            assert found[3] == 12.5
    assert refused


SAY_WHAT_IS_SAID = """
import sys
from pathlib import Path
from tests.engine import test_checkpoints
from envs.errors import BadInputError
try:
    test_checkpoints.restore(Path(sys.argv[1]))
except BadInputError as error:
    print(error)
"""


def test_a_damaged_checkpoint_makes_one_line_and_no_more(folder):
    """Orbax's unfinished reads complain when they are collected, up to the end of the process."""
    for path in files_of(folder):
        if path.parent.name == "d" and "lanes" in path.parts:
            cut(path)
    command = [sys.executable, "-c", SAY_WHAT_IS_SAID, str(folder)]
    root = Path(__file__).parents[2]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.count("\n") == 1
    assert found.stdout.startswith(f"the checkpoint in {folder} is damaged")
    assert found.stderr == ""


def test_an_empty_checkpoint_folder(bad_input, folder):
    shutil.rmtree(folder / "checkpoints" / "50")
    (folder / "checkpoints" / "50").mkdir()
    with bad_input("is damaged and cannot be read"):
        restore(folder)


def test_checkpoints_of_other_shapes(bad_input, folder):
    """As if the code had changed in between."""
    other = {**lanes(), "params": {"kernel": jnp.zeros((LANES, 4, 2))}}
    sharding = seed_sharding(seed_mesh(LANES))
    with bad_input("is damaged and cannot be read"):
        Checkpoints(folder, EXPERIMENT).restore(abstract(other, sharding))
    without = {name: leaf for name, leaf in lanes().items() if name != "odd"}
    with bad_input("is damaged and cannot be read"):
        Checkpoints(folder, EXPERIMENT).restore(abstract(without, sharding))


def test_folders_that_cannot_be_written(bad_input, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "below"):
        with bad_input(f"output folder {folder} cannot be written"):
            Checkpoints(folder, EXPERIMENT)
        with bad_input(f"output folder {folder} cannot be written"):
            prepare_folder(folder)
    with bad_input("cannot be written"):
        prepare_folder(tmp_path / ("long" * 100))


def test_a_file_where_the_checkpoints_should_be(bad_input, tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with bad_input(f"output folder {tmp_path / 'checkpoints'} cannot be written: File exists"):
        Checkpoints(tmp_path, EXPERIMENT)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(bad_input, tmp_path):
    tmp_path.chmod(0o500)
    with bad_input("cannot be written: Permission denied"):
        Checkpoints(tmp_path / "run", EXPERIMENT)
    with bad_input("cannot be written: Permission denied"):
        prepare_folder(tmp_path)


def test_preparing_a_folder_leaves_nothing_in_it(tmp_path):
    prepare_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
