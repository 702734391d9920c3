import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import baselines
import envs
from envs.matrix_games import matrix_game
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import train
from jaxmarl_fac.play import load_player
from tests.helpers import but_slow

SEEDS = (3, 5, 8)
TRAINED = Experiment(
    algorithm=baselines.make("vdn"),
    environment=matrix_game([[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
    seeds=SEEDS,
    env_steps=60,
    evaluations=1,
    evaluation_episodes=1,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, train(TRAINED, folder)


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Two games, which pay 10 and 20 for whatever is played."""
    folder = tmp_path_factory.mktemp("batch")
    one = matrix_game([[10, 10], [10, 10]])
    games = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), one)
    games = games.replace(payoff=games.payoff * jnp.asarray([1.0, 2.0]).reshape(2, 1, 1, 1))
    train(dataclasses.replace(TRAINED, environment=games, games=2, seeds=(0, 1)), folder)
    return folder


@pytest.mark.parametrize("seed", but_slow(SEEDS, [5]))
def test_a_player_has_its_seeds_parameters_and_plays_as_the_loop_evaluated(run, seed):
    folder, result = run
    player, place = load_player(folder, seed), SEEDS.index(seed)
    for leaf, lanes in zip(
        jax.tree.leaves(player.params), jax.tree.leaves(result.learner.params), strict=True
    ):
        np.testing.assert_array_equal(leaf, lanes[place])
    returns = player.returns(episodes=4)
    np.testing.assert_array_equal(returns, [result.history.last["episode_return"][place]] * 4)
    assert player.env_steps == 60


def test_without_a_number_it_is_the_first_seed(run):
    folder, _ = run
    jax.tree.map(
        np.testing.assert_array_equal, load_player(str(folder)).params, load_player(folder, 3).params
    )


@pytest.mark.slow
def test_a_game_of_a_batch(batch):
    assert load_player(batch, 1, game=0).returns(2).tolist() == [10, 10]
    assert load_player(batch, 0, game=1).returns(2).tolist() == [20, 20]


def test_states_follow_each_other_until_the_end(run):
    states = load_player(run[0]).states()
    assert len(states) == 2  # a one-shot game
    assert int(states[-1].step_count) == int(states[0].step_count) + 1


@pytest.mark.slow
def test_longer_games_are_other_games_under_another_key(tmp_path):
    prey = envs.make("predator-prey-2", time_limit=7)
    small = baselines.make("vdn", hidden=(8,), replay_size=40)
    train(dataclasses.replace(TRAINED, algorithm=small, environment=prey, seeds=(0,), env_steps=40), tmp_path)
    player = load_player(tmp_path)
    states = player.states(key=1)
    assert [int(state.step_count) for state in states] == list(range(8))
    assert player.returns(5, key=1).tolist() == player.returns(5, key=1).tolist()
    assert player.returns(20, key=1).tolist() != player.returns(20, key=2).tolist()
    player.animate(tmp_path / "game.gif", key=1)
    with Image.open(tmp_path / "game.gif") as picture:
        assert picture.n_frames > 1


def test_bad_input(run, batch, tmp_path, bad_input):
    folder, _ = run
    with bad_input("there is no"):
        load_player(tmp_path / "nowhere")
    with bad_input("folder must be the path of a folder, not NoneType"):
        load_player(None)
    with bad_input("has no seed 4: choose one of 3, 5, 8"):
        load_player(folder, 4)
    with bad_input("has no game 2: choose one of 0, 1"):
        load_player(batch, 0, game=2)
    with bad_input("has no game -1"):
        load_player(folder, 3, game=-1)
    with bad_input("episodes must be at least 1, not 0"):
        load_player(folder).returns(0)
    with bad_input("object has no viewer"):
        dataclasses.replace(load_player(folder), environment=object()).animate(tmp_path / "game.gif")
    with bad_input("must end in .gif"):
        load_player(folder).animate(tmp_path / "game.mp4")
    with bad_input("cannot be written: No such file or directory"):
        load_player(folder).animate(tmp_path / "nowhere" / "game.gif")


@pytest.mark.slow
def test_a_run_without_a_checkpoint_and_a_damaged_one(run, tmp_path, bad_input):
    folder, _ = run
    shutil.copy(folder / "experiment.json", tmp_path / "experiment.json")
    with bad_input("holds no checkpoint yet"):
        load_player(tmp_path)
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    for file in (damaged / "checkpoints").rglob("*"):
        if file.is_file() and file.parent.name == "d":  # the arrays' own bytes
            file.write_bytes(b"")
    with bad_input("is damaged"):
        load_player(damaged)
    (damaged / "experiment.json").write_text("[]")
    with bad_input("holds no experiment"):
        load_player(damaged)


@pytest.mark.parametrize("step", ["last", 1.5, [1]])
def test_steps_that_are_none(tmp_path, bad_input, step):
    with bad_input("step must be a number of environment steps or 'best'"):
        load_player(tmp_path, step=step)
