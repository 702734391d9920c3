"""Settings that must stand before JAX touches a device, and what many tests share."""

import contextlib
import gc
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

# Through the environment, because importing jumanji starts JAX's devices; subprocesses inherit it.
#: Two CPU devices, so that sharding over seeds is under test.
os.environ["JAX_NUM_CPU_DEVICES"] = "2"
#: Compiled programs are kept between runs, by each test process in a folder of its own, because JAX does
#: not write them atomically.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
    Path(__file__).parents[1] / ".cache" / "jax" / os.environ.get("PYTEST_XDIST_WORKER", "main")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import hypothesis
import jax
import pytest

from envs.errors import BadInputError

# Tracing makes many objects that live on: collected as often as by default, they take a seventh of the time.
gc.set_threshold(100_000, 20, 20)

# The same examples everywhere; `--hypothesis-profile=default` draws new ones.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    # A process that was killed may leave half a file there; JAX then compiles again.
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache")


@pytest.fixture
def bad_input() -> Callable[[str], contextlib.AbstractContextManager[None]]:
    """A context manager that expects a BadInputError of one line, with the given part in it."""

    @contextlib.contextmanager
    def expect(part: str) -> Iterator[None]:
        with pytest.raises(BadInputError) as caught:
            yield
        message = str(caught.value)
        assert part in message
        assert "\n" not in message

    return expect


@pytest.fixture(scope="module")
def float64() -> Iterator[None]:
    """JAX's 64-bit mode, for the tests of a module."""
    with jax.enable_x64(True):
        yield


class FakeWandb(types.ModuleType):
    """Stands for the module `wandb`, and for its runs: notes what it is given.

    Attributes:
        options: of the last `init`.
        logged: `(step, values)` of every log.
        exit_codes: of every finish.
        starting_step: the first step that a run lacks; where its history ends, if it is resumed.
    """

    def __init__(self) -> None:
        super().__init__("wandb")
        self.options: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.exit_codes: list[int] = []
        self.starting_step = 0
        self.Settings = dict

    def init(self, **options: Any) -> "FakeWandb":
        self.options = options
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    """In place of the module `wandb`, outside of any sweep of it."""
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module
