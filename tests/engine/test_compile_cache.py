import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxmarl_fac import compile_cache

ROOT = Path(__file__).parents[2]


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """As if nobody had told JAX about its cache; what is set instead."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = {}
    monkeypatch.setattr(jax.config, "update", lambda name, value: found.update({name: value}))
    return found


def test_it_is_in_the_users_cache_folder(unset, tmp_path):
    compile_cache.use_compile_cache()
    folder = Path(unset["jax_compilation_cache_dir"])
    assert folder.parent == tmp_path / "jaxmarl_fac" and folder.is_dir()


def test_other_kinds_of_processors_have_other_folders(monkeypatch):
    texts = ["model name: A\nMHz: 1", "model name: A\nMHz: 2", "model name: B\nMHz: 1"]
    names = []
    for text in texts:
        monkeypatch.setattr(Path, "read_text", lambda path, encoding, text=text: text)
        names.append(compile_cache._processor())
    assert names[0] == names[1] != names[2]


def test_what_jax_was_told_stands(unset, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    compile_cache.use_compile_cache()
    assert unset == {}


def test_a_folder_that_cannot_be_made_is_done_without(unset, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compile_cache.use_compile_cache()
    assert unset == {}

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    compile_cache.use_compile_cache()
    assert unset == {}


def test_the_oldest_entries_go_when_there_are_too_many(unset, monkeypatch, tmp_path):
    compile_cache.use_compile_cache()
    folder = Path(unset["jax_compilation_cache_dir"])
    for age in range(4):
        path = folder / f"entry-{age}"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    monkeypatch.setattr(compile_cache, "MAX_BYTES", 250)
    compile_cache.use_compile_cache()
    assert sorted(path.name for path in folder.iterdir()) == ["entry-0", "entry-1"]


def times(cache):
    """When each entry was written."""
    return {path: path.stat().st_mtime_ns for path in cache.glob("jaxmarl_fac/*/*")}


@pytest.mark.slow
def test_a_run_has_the_same_bits_from_the_cache_and_from_one_that_was_cut_off(tmp_path):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMP", "JAX_PERS"))
    } | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "experiments/train.py"), "--algo", "vdn", "--env", "matrix-qtran"]
    command += ["--env-steps", "100", "--evaluations", "2", "--hidden", "8"]
    found, entries = [], {}
    for name in ("cold", "warm", "cut"):
        if name == "cut":
            for path in (tmp_path / "cache").glob("jaxmarl_fac/*/*"):
                path.write_bytes(path.read_bytes()[:100])
        done = subprocess.run(
            [*command, "--out", str(tmp_path / name)], env=environment, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        found.append(dict(np.load(tmp_path / name / "metrics.npz")))
        before, entries = entries, times(tmp_path / "cache")
        assert entries and (name != "warm" or entries == before)
    for other in found[1:]:
        for metric, values in found[0].items():
            np.testing.assert_array_equal(values, other[metric], err_msg=metric)
