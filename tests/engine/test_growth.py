"""Runs that are trained longer, and that take up more seeds."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.matrix_games import two_step_game
from jaxmarl_fac import checkpoints, growth, loop
from jaxmarl_fac.algorithm import Learner, LearnerState, no_memory, periods
from jaxmarl_fac.checkpoints import Checkpoints
from jaxmarl_fac.experience import Decision
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import InterruptedRunError, train
from jaxmarl_fac.memory import Episodes, Rollout, Transitions
from jaxmarl_fac.tracking import History
from tests.engine.test_loop import Listener, assert_same_result


@dataclasses.dataclass(frozen=True)
class Marked:
    """Learns a number of its seed's own, times the rewards it sees."""

    consumes: str = "latest"
    replay_size: int = 1000
    batch_size: int = 4

    def bind(self, game, num_envs=1):
        memory = {
            "latest": Rollout(),
            "transitions": Transitions(self.replay_size, self.batch_size),
            "episodes": Episodes(self.replay_size, self.batch_size),
        }[self.consumes]

        def init(key):
            params = {"mark": jax.random.uniform(key), "sum": jnp.zeros(())}
            return LearnerState(params, params, ())

        def act(params, carry, observation, clock, key):
            return Decision(jax.random.randint(key, (game.num_agents,), 0, game.num_actions))

        def act_greedily(params, carry, observation, key):
            return Decision(jnp.zeros((game.num_agents,), jnp.int32))

        def update(state, batch, clock, key):
            change = jnp.max(batch.reward) * state.params["mark"]
            params = {**state.params, "sum": state.params["sum"] + change}
            return state.replace(params=params), {"moved": change}

        when = periods(memory, game, num_envs, learning_starts=4, target_period=7)
        return Learner(memory, when, init, no_memory, act, act_greedily, update)


BASE = Experiment(algorithm=Marked(), environment=two_step_game(), seeds=(4, 5), env_steps=40, evaluations=4)


def changed(**fields):
    return dataclasses.replace(BASE, **fields)


def learners_of(result):
    return {name: np.asarray(leaf).tolist() for name, leaf in result.learner.params.items()}


# Longer


@pytest.mark.parametrize(
    ("consumes", "num_envs"),
    [
        pytest.param("latest", 1, marks=pytest.mark.slow),
        ("transitions", 1),
        pytest.param("transitions", 2, marks=pytest.mark.slow),
        pytest.param("episodes", 1, marks=pytest.mark.slow),
        pytest.param("episodes", 2, marks=pytest.mark.slow),
    ],
)
def test_two_parts_are_the_same_bits_as_one_go(tmp_path, consumes, num_envs):
    """Replay had no more rows than the first part could fill."""
    short = changed(algorithm=Marked(consumes=consumes), num_envs=num_envs)
    long = dataclasses.replace(short, env_steps=96)
    train(short, tmp_path)
    listener = Listener()
    grown, whole = train(long, tmp_path, tracker=listener), train(long)
    assert learners_of(grown) == learners_of(whole)
    assert listener.heard == [48, 72, 96]
    assert grown.history.arrays()["env_steps"].tolist() == [0, 10, 20, 30, 40, 48, 72, 96]
    record = json.loads((tmp_path / "experiment.json").read_text())
    assert (record["env_steps"], record["seeds"]) == (96, [4, 5])
    with np.load(tmp_path / "metrics.npz") as metrics:
        assert metrics["env_steps"].tolist() == grown.history.arrays()["env_steps"].tolist()
    assert_same_result(train(long, tmp_path), grown)


@pytest.mark.slow
def test_an_unfinished_run_is_trained_longer_and_a_longer_one_not_shorter(tmp_path, bad_input):
    with pytest.raises(InterruptedRunError):
        train(BASE, tmp_path, tracker=Listener(stop_at=20))
    long = changed(env_steps=80)
    grown = train(long, tmp_path)
    assert learners_of(grown) == learners_of(train(long))
    assert grown.history.arrays()["env_steps"].tolist() == [0, 10, 20, 40, 60, 80]
    with bad_input("holds a run of 80 environment steps: env_steps may be raised, not lowered to 40"):
        train(BASE, tmp_path)


def test_a_result_that_must_come_from_one_go_does_not_grow(folder, bad_input):
    for wanted, name in ((changed(env_steps=80), "env_steps"), (changed(seeds=(4, 5, 6)), "seeds")):
        with bad_input(f"holds another experiment (it differs in {name})"):
            train(wanted, folder, grow=False)


def test_killed_before_the_first_checkpoint_of_the_new_part_it_is_the_old_run(finished, folder):
    Checkpoints(folder, changed(env_steps=80))
    assert_same_result(train(BASE, folder), finished[1])


@pytest.mark.slow
def test_a_ring_that_has_wrapped_goes_on(tmp_path):
    small = Marked(consumes="transitions", replay_size=16)
    train(changed(algorithm=small), tmp_path)
    long = changed(algorithm=small, env_steps=80)
    assert learners_of(train(long, tmp_path)) == learners_of(train(long))


@pytest.mark.slow
def test_more_rows_than_steps_as_older_code_stored_them(tmp_path, monkeypatch):
    """It said nothing of seeds and steps."""
    replaying = changed(algorithm=Marked(consumes="transitions"))
    bind, numbers = Transitions.bind, checkpoints._numbers
    with monkeypatch.context() as patch:
        patch.setattr(Transitions, "bind", lambda self, *given, **more: bind(self, *given[:3], 300, **more))
        patch.setattr(checkpoints, "_numbers", lambda *args: dict(list(numbers(*args).items())[:2]))
        with pytest.raises(InterruptedRunError):
            train(replaying, tmp_path, tracker=Listener(stop_at=20))
    assert learners_of(train(replaying, tmp_path)) == learners_of(train(replaying))


# More seeds


MORE = changed(seeds=(3, 4, 5, 6))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(BASE, folder)


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def together():
    return train(MORE)


def assert_joined(folder, result, together):
    assert_same_result(result, together)
    assert result.env_steps == together.env_steps
    record = json.loads((folder / "experiment.json").read_text())
    assert (record["env_steps"], record["seeds"]) == (40, [3, 4, 5, 6])
    with np.load(folder / "metrics.npz") as metrics:
        for name, rows in result.history.arrays().items():
            np.testing.assert_array_equal(metrics[name], rows)
    assert not (folder / ".added").exists()
    assert len(list((folder / "checkpoints").iterdir())) == 1


@pytest.mark.slow
def test_seeds_are_added_to_a_finished_run(finished, folder, together):
    result = train(MORE, folder)
    assert_joined(folder, result, together)
    assert_same_result(result, finished[1], lanes=slice(1, 3))  # the old ones' numbers, to the bit
    assert result.seconds > finished[1].seconds
    assert_same_result(train(MORE, folder), together)


@pytest.mark.slow
def test_seeds_of_several_games_come_game_by_game(tmp_path):
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), two_step_game())
    games = changed(environment=two, games=2)
    train(games, tmp_path)
    more = dataclasses.replace(games, seeds=(3, 4, 5))
    assert_same_result(train(more, tmp_path), train(more))


@pytest.mark.slow
def test_seeds_and_steps_at_once(folder):
    """First the seeds, up to where the others stand."""
    both = changed(seeds=(4, 5, 6), env_steps=80)
    result = train(both, folder)
    assert learners_of(result) == learners_of(train(both))
    assert result.history.arrays()["env_steps"].tolist() == [0, 10, 20, 30, 40, 60, 80]
    more = train(changed(seeds=(4, 5, 6, 7), env_steps=80), folder)  # evaluated when the others were
    assert more.history.arrays()["env_steps"].tolist() == [0, 10, 20, 30, 40, 60, 80]


def test_seeds_of_an_unfinished_run_are_refused(tmp_path, bad_input):
    with pytest.raises(InterruptedRunError):
        train(BASE, tmp_path, tracker=Listener(stop_at=20))
    with bad_input("seeds can be added to a finished run only"):
        train(MORE, tmp_path)
    with bad_input("it differs in seeds)"):
        train(changed(seeds=(4, 6)), tmp_path)


class KilledError(Exception):
    """In place of SIGKILL."""


def killed(*args, **kwargs):
    raise KilledError


@pytest.fixture(scope="module")
def added(finished, tmp_path_factory):
    """A run whose new seeds are trained, and not yet joined."""
    folder = tmp_path_factory.mktemp("added") / "run"
    shutil.copytree(finished[0], folder)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Checkpoints, "restore", kill_at_the_join(Checkpoints.restore))
        train(MORE, folder)
    assert (folder / ".added").exists()
    return folder


def kill_at_the_join(restore):
    """The old run is read only for the join."""

    def patched(self, abstract):
        if self.saved and self.saved.experiment.seeds == BASE.seeds:
            raise KilledError
        return restore(self, abstract)

    return patched


def not_dropped(added, seeds):
    if added.exists():
        raise KilledError


def dropped_by_half(added, seeds):
    if added.exists():
        (added / "experiment.json").unlink()
        raise KilledError


@pytest.mark.parametrize(
    ("where", "name", "how"),
    [
        pytest.param(checkpoints.ocp.CheckpointManager, "save", killed, marks=pytest.mark.slow),
        pytest.param(checkpoints, "save_experiment", killed, marks=pytest.mark.slow),
        pytest.param(History, "save", killed, marks=pytest.mark.slow),
        pytest.param(growth, "_drop_joined", not_dropped, marks=pytest.mark.slow),
        (growth, "_drop_joined", dropped_by_half),
    ],
)
def test_killed_at_any_step_of_the_join_the_same_call_goes_on(
    added, tmp_path, together, monkeypatch, where, name, how
):
    folder = tmp_path / "run"
    shutil.copytree(added, folder)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(where, name, how)
        train(MORE, folder)
    assert_joined(folder, train(MORE, folder), together)


@pytest.mark.slow
def test_the_new_seeds_go_on_after_a_stop_and_the_old_command_leaves_them(finished, folder, together):
    original = loop._run

    def stopped(program, *args, **kwargs):
        if program.experiment.seeds == (3, 6):
            kwargs["tracker"] = Listener(stop_at=20)
        return original(program, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedRunError):
        patch.setattr(loop, "_run", stopped)
        train(MORE, folder)
    with np.load(folder / "metrics.npz") as metrics:
        assert metrics["episode_return"].shape == (5, 2)  # of the run as it was
    assert_same_result(train(BASE, folder), finished[1])
    assert Checkpoints(folder / ".added", changed(seeds=(3, 6))).saved.iteration == 20
    assert_joined(folder, train(MORE, folder), together)


# What is kept


def test_a_checkpoint_at_every_better_evaluation(tmp_path):
    """Returns are the same at all of them: the first one, and the last checkpoint."""
    train(BASE, tmp_path, keep="all", keep_best=True)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["0", "40"]


@pytest.mark.parametrize("keep", [0, -1, "none", 1.5])
def test_keep_must_be_a_number_from_1_or_all(tmp_path, bad_input, keep):
    with bad_input(f"keep must be 'all' or a whole number above 0, not {keep!r}"):
        train(BASE, tmp_path / "run", keep=keep)
    assert not (tmp_path / "run").exists()
