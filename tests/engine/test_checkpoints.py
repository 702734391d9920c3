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
import orbax.checkpoint as ocp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import baselines
from envs.matrix_games import matrix_game
from jaxmarl_fac import checkpoints
from jaxmarl_fac.checkpoints import Checkpoints, read_params
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.files import locked, prepare_folder
from jaxmarl_fac.parallel import lane_mesh, lane_sharding, shard
from jaxmarl_fac.saved import load_experiment, save_experiment, to_json
from jaxmarl_fac.tracking import History
from tests.helpers import but_slow

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
    return shard(tree, lane_mesh(LANES))


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
        abstract(lanes(), sharding or lane_sharding(lane_mesh(LANES)))
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
    kept = Checkpoints(folder, EXPERIMENT)
    for iteration in (60, 70):
        kept.save({**lanes(), "stage": jnp.full((LANES,), iteration, jnp.int8)}, iteration, history(), 20.0)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["70"]
    restored, iteration, _, seconds = restore(folder)
    assert (iteration, seconds) == (70, 20.0)
    assert (restored["stage"] == 70).all()


def test_the_experiment_stands_beside_it(folder):
    record = json.loads((folder / "experiment.json").read_text())
    assert record == json.loads(json.dumps(to_json(EXPERIMENT)))


def test_a_record_from_before_a_setting_is_of_the_same_experiment(folder, bad_input):
    """What is missing has its default."""
    record = json.loads((folder / "experiment.json").read_text())
    for place, name in (
        (record, "bitwise_seeds"),
        (record, "matmul_precision"),
        (record["algorithm"]["agents"], "recurrent"),
    ):
        del place[name]
    (folder / "experiment.json").write_text(json.dumps(record))
    assert restore(folder)[1] == 50
    with bad_input("it differs in bitwise_seeds)"):
        Checkpoints(folder, dataclasses.replace(EXPERIMENT, bitwise_seeds=True))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"env_steps": 200, "root_key": 1}, "it differs in env_steps, root_key)"),
        ({"seeds": (0, 1, 2)}, "it differs in seeds)"),
        ({"seeds": (0, 1, 2, 4)}, "it differs in seeds)"),
        ({"seeds": (3, 2, 1, 0), "env_steps": 200}, "it differs in env_steps, seeds)"),
        ({"seeds": (0, 1, 2), "root_key": 1}, "it differs in root_key, seeds)"),
        ({"algorithm": baselines.make("vdn", learning_rate=0.1)}, "algorithm.optimiser.learning_rate)"),
        ({"algorithm": baselines.make("iql")}, "algorithm.method.type"),
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


@pytest.mark.parametrize("harm", but_slow([cut, garble, drop], [garble]))
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


@pytest.mark.slow
@pytest.mark.parametrize("harm", [cut, garble, drop])
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_checkpoints_of_other_shapes(bad_input, folder):
    """As if the code had changed in between."""
    other = {**lanes(), "params": {"kernel": jnp.zeros((LANES, 4, 2))}}
    sharding = lane_sharding(lane_mesh(LANES))
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


def test_lower_env_steps_are_refused_and_seeds_of_an_unfinished_run(folder, bad_input):
    with bad_input(
        f"{folder} holds a run of 100 environment steps: env_steps may be raised, not lowered to 99"
    ):
        Checkpoints(folder, dataclasses.replace(EXPERIMENT, env_steps=99))
    with bad_input(f"{folder} is at 50 of 100 environment steps: finish it first, with its 4 seed(s)"):
        Checkpoints(folder, dataclasses.replace(EXPERIMENT, seeds=range(5)))
    assert restore(folder)[1] == 50


def scored(*returns):
    """Evaluations after 10, 20, ... steps, with these mean returns."""
    kept = History()
    for number, value in enumerate(returns, 1):
        kept.append(10 * number, {"episode_return": np.asarray([value - 1.0, value + 1.0, value, value])})
    return kept


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [
        pytest.param(1, False, ["40"], marks=pytest.mark.slow),
        (3, False, ["25", "30", "40"]),
        pytest.param("all", False, ["10", "20", "25", "30", "40"], marks=pytest.mark.slow),
        pytest.param(1, True, ["20", "40"], marks=pytest.mark.slow),
        (2, True, ["20", "30", "40"]),
    ],
)
def test_which_checkpoints_stay(tmp_path, keep, best, left, bad_input):
    """Evaluated at 10, 20, 30 and 40, the best at 20; what is between two evaluations is not judged."""
    returns = (1.0, 5.0, 3.0, 4.0)
    kept = Checkpoints(tmp_path, EXPERIMENT, keep, best)
    better = []
    for iteration in (10, 20, 25, 30, 40):
        past = scored(*returns[: iteration // 10])
        if iteration != 25:
            better.append(kept.is_best(past))
        params = {"kernel": jnp.full((LANES, 3, 2), iteration, jnp.float32)}
        kept.save({"learner": {"params": params}}, iteration, past, 1.0)
    assert better == [best, best, False, False]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == left
    for name in left:
        saved, params = read_params(tmp_path, PARAMS, int(name))
        assert saved.iteration == int(name)
        assert (params["kernel"] == int(name)).all()
    assert read_params(tmp_path, PARAMS)[0].iteration == 40
    assert read_params(tmp_path, PARAMS, "best")[0].iteration == (20 if "20" in left else 40)
    with bad_input(f"keeps no checkpoint at 35 environment steps: choose {', '.join(left)} or best"):
        read_params(tmp_path, PARAMS, 35)


def test_what_is_kept_is_compared_with_the_best_after_a_restart(tmp_path):
    Checkpoints(tmp_path, EXPERIMENT, keep_best=True).save(lanes(), 10, scored(5.0), 1.0)
    kept = Checkpoints(tmp_path, EXPERIMENT, keep_best=True)
    assert not kept.is_best(scored(5.0, 5.0))
    assert kept.is_best(scored(5.0, 5.1))
    assert not kept.is_best(scored(5.0, np.nan))


def no_space(self, path, *args, **kwargs):
    """As tensorstore says it, half-way."""
    (path.parent / f"{path.name}.orbax-checkpoint-tmp").mkdir()
    raise ValueError(
        f"RESOURCE_EXHAUSTED: Error writing {path}: No space left on device [os_error_code='28']"
    )


def test_on_a_full_disk_the_last_checkpoint_is_kept(folder, bad_input, monkeypatch):
    kept = Checkpoints(folder, EXPERIMENT)
    with monkeypatch.context() as patch:
        patch.setattr(ocp.Checkpointer, "save", no_space)
        with bad_input(
            f"in {folder} cannot be written: No space left on device; the last checkpoint is kept"
        ):
            kept.save(lanes(), 60, history(), 20.0)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["50"]
    assert restore(folder)[1] == 50


def test_on_a_full_disk_from_the_start_none_is_kept(tmp_path, bad_input, monkeypatch):
    monkeypatch.setattr(ocp.Checkpointer, "save", no_space)
    with bad_input("cannot be written: No space left on device; none is kept"):
        Checkpoints(tmp_path, EXPERIMENT).save(lanes(), 10, history(), 1.0)


def test_errors_of_the_code_are_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(ocp.Checkpointer, "save", lambda self: None)  # which takes no arguments
    with pytest.raises(TypeError):
        Checkpoints(tmp_path, EXPERIMENT).save(lanes(), 10, history(), 1.0)


SAVE_TWICE = """
import jax.numpy as jnp
from pathlib import Path
from tests.engine import test_checkpoints as these
from envs.errors import BadInputError
import sys
kept = these.Checkpoints(Path(sys.argv[1]), these.EXPERIMENT)
kept.save(these.lanes(), 50, these.history(), 1.0)
noise = these.np.random.default_rng(0).bytes(400_000)
more = jnp.frombuffer(noise, jnp.uint8).reshape(4, -1)
try:
    kept.save({**these.lanes(), "more": more, "again": more + 1}, 60, these.history(), 1.0)
except BadInputError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a small file system, and root to mount it")
def test_a_full_disk_makes_one_line_and_no_more(tmp_path):
    """On a real one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    try:
        command = [sys.executable, "-c", SAVE_TWICE, str(tmp_path / "run")]
        root = Path(__file__).parents[2]
        found = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=True)
        assert found.stderr == ""
        assert found.stdout == (
            f"a checkpoint in {tmp_path / 'run'} cannot be written: No space left on device; "
            "the last checkpoint is kept\n"
        )
        assert restore(tmp_path / "run")[1] == 50
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# Reading, while the run goes on


PARAMS = {"kernel": jax.ShapeDtypeStruct((3, 2), jnp.float32)}


@pytest.fixture
def learned(tmp_path):
    """A run whose lanes are named as the loop's, with the iteration for parameters."""
    folder = tmp_path / "run"
    kept = Checkpoints(folder, EXPERIMENT)

    def save(iteration):
        params = {"kernel": jnp.full((LANES, 3, 2), iteration, jnp.float32)}
        tree = {"learner": {"params": params, "moments": params}, "buffer": jnp.zeros((LANES, 9))}
        kept.save(tree, iteration, history(), 1.0)

    save(50)
    return folder, save


def everything_in(folder):
    return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def test_reading_writes_nothing(learned):
    folder, _ = learned
    with locked(folder):
        before = everything_in(folder)
        saved, params = read_params(folder, PARAMS)  # a run that holds the lock is no obstacle
    assert saved.iteration == 50
    assert params["kernel"].tolist() == np.full((LANES, 3, 2), 50).tolist()
    assert everything_in(folder) == before


def test_reading_a_run_without_checkpoints_makes_no_folder(tmp_path, bad_input):
    save_experiment(EXPERIMENT, tmp_path / "experiment.json")
    with bad_input(f"{tmp_path} holds no checkpoint yet"):
        read_params(tmp_path, PARAMS)
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.json"]


@pytest.mark.slow
def test_a_checkpoint_that_is_replaced_while_it_is_read_is_no_damaged_one(learned, monkeypatch):
    folder, save = learned
    original, to_come = ocp.CheckpointManager.restore, [60, 70, 80]

    def replaced(self, *args, **kwargs):
        if to_come:
            save(to_come.pop(0))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", replaced)
    saved, params = read_params(folder, PARAMS)
    assert saved.iteration == 80
    assert (params["kernel"] == 80).all()


@pytest.mark.slow
def test_a_run_that_saves_faster_than_it_can_be_read(learned, monkeypatch, bad_input):
    folder, save = learned
    monkeypatch.setattr(checkpoints, "ATTEMPTS", 3)
    iterations = iter(range(60, 100))

    def replaced(self, *args, **kwargs):
        save(next(iterations))
        raise FileNotFoundError

    monkeypatch.setattr(ocp.CheckpointManager, "restore", replaced)
    with bad_input("faster than they can be read"):
        read_params(folder, PARAMS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wanted",
    [
        {"kernel": jax.ShapeDtypeStruct((3, 4), jnp.float32)},
        {**PARAMS, "bias": PARAMS["kernel"]},
    ],
)
def test_parameters_of_other_shapes(learned, bad_input, wanted):
    """As if the code had changed in between."""
    with bad_input("is damaged and cannot be read"):
        read_params(learned[0], wanted)


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
