"""Variants: several settings of one algorithm side by side in one program."""

import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
import envs
import envs.registry as environments
from baselines.registry import ALGORITHMS
from baselines.tabular import TabularLearning
from envs.errors import BadInputError
from envs.matrix_games import matrix_game
from jaxmarl_fac.errors import DivergedError
from jaxmarl_fac.experiment import Experiment, grid
from jaxmarl_fac.loop import InterruptedRunError, train
from jaxmarl_fac.play import load_player
from jaxmarl_fac.program import Program
from jaxmarl_fac.saved import from_json, load_experiment, save_experiment, to_json
from jaxmarl_fac.settings import can_vary, is_float, leaves, replaced, traced

#: Two settings of two values each; tables, which compile in a second.
SEVERAL = grid(step_size=(0.1, 0.5), gamma=(0.5, 0.99))
BASE = Experiment(
    algorithm=baselines.make("iql-tabular", epsilon_end=1.0),
    environment=envs.make("two-step"),
    seeds=(4, 0, 7),
    env_steps=60,
    evaluations=3,
    bitwise_seeds=True,
)
MANY = dataclasses.replace(BASE, variants=SEVERAL)


def alone(experiment, settings, **changed):
    """The same with one variant only, as its algorithm."""
    algorithm = replaced(experiment.algorithm, **settings)
    return dataclasses.replace(experiment, algorithm=algorithm, variants=(), **changed)


class StopAt:
    """A tracker that sends this process SIGTERM at an evaluation."""

    def __init__(self, env_steps):
        self._env_steps = env_steps

    def start(self, history):
        pass

    def log(self, history, seconds):
        if history.last_env_steps == self._env_steps:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def whole():
    return train(MANY)


def test_a_grid_has_all_combinations_and_its_last_setting_varies_fastest():
    assert SEVERAL == (("step_size", (0.1, 0.1, 0.5, 0.5)), ("gamma", (0.5, 0.99, 0.5, 0.99)))
    assert MANY.variant_settings[1] == {"step_size": 0.1, "gamma": 0.99}
    assert MANY.lanes == 12
    assert MANY.groups[2] == "step_size 0.5, gamma 0.5"
    assert grid() == () and BASE.variant_settings == ({},) and BASE.groups == ("",)


def test_every_variant_is_the_run_with_its_settings(whole):
    """To the last bit, metrics and tables."""
    table = whole.history.arrays()
    for index, settings in enumerate(MANY.variant_settings):
        one, lanes = train(alone(MANY, settings)), slice(3 * index, 3 * index + 3)
        for name, values in one.history.arrays().items():
            if name != "env_steps":
                np.testing.assert_array_equal(table[name][:, lanes], values, err_msg=name)
        jax.tree.map(
            lambda many, single, lanes=lanes: np.testing.assert_array_equal(many[lanes], single),
            whole.learner.params,
            one.learner.params,
        )
    tables = np.asarray(jax.tree.leaves(whole.learner.params)[0]).reshape(4, -1)
    assert len(np.unique(tables, axis=0)) == 4  # the settings do make a difference


@pytest.mark.slow
@pytest.mark.parametrize("together", [True, False])
def test_networks(together):
    """Together, lanes differ from single ones by rounding only, as seeds do."""
    experiment = Experiment(
        algorithm=baselines.make("qtran-base"),
        environment=envs.make("matrix-qtran"),
        seeds=(0, 1),
        env_steps=500,
        evaluations=2,
        bitwise_seeds=not together,
        variants=grid(learning_rate=(1e-4, 3e-3), opt_weight=(0.5, 2.0)),
    )
    table = train(experiment).history.arrays()
    for index, settings in enumerate(experiment.variant_settings):
        one = train(alone(experiment, settings)).history.arrays()
        for name in ("loss", "td_loss", "episode_return"):
            np.testing.assert_allclose(
                table[name][:, 2 * index : 2 * index + 2], one[name], rtol=2e-3 if together else 0, atol=0
            )


def test_games_and_variants():
    """Lanes are ordered by variant, then by game, then by seed."""
    game = matrix_game([[8.0, 0.0], [0.0, 2.0]])
    payoff = jnp.stack([game.payoff, 3 * game.payoff])
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), game).replace(payoff=payoff)
    experiment = dataclasses.replace(
        BASE, environment=batch, games=2, variants=grid(step_size=(0.1, 0.5)), seeds=(1, 0)
    )
    assert experiment.groups[1] == "step_size 0.1, game 1"
    names = Program(experiment).lane_names(np.arange(8) == 5)
    assert names == ["step_size 0.5, game 0 seed 0"]
    (table,) = jax.tree.leaves(train(experiment).learner.params)
    settings = experiment.variant_settings[1]
    (one,) = jax.tree.leaves(train(alone(experiment, settings)).learner.params)
    np.testing.assert_array_equal(table[4:], one)


def test_a_stopped_run_goes_on_and_is_played_by_variant(whole, tmp_path):
    with pytest.raises(InterruptedRunError):
        train(MANY, tmp_path, tracker=StopAt(20))
    result = train(MANY, tmp_path)
    for name, values in whole.history.arrays().items():
        np.testing.assert_array_equal(result.history.arrays()[name], values)
    player = load_player(tmp_path, seed=0, variant=3)
    assert leaves(player.algorithm)["step_size"].value == 0.5
    params = jax.tree.map(lambda leaf: leaf[3 * 3 + 1], whole.learner.params)
    jax.tree.map(np.testing.assert_array_equal, player.params, params)
    with pytest.raises(BadInputError, match="has no variant 4: choose one of 0 to 3"):
        load_player(tmp_path, variant=4)


def test_seeds_can_be_added(whole, tmp_path):
    train(dataclasses.replace(MANY, seeds=(0,)), tmp_path)
    result = train(MANY, tmp_path)
    for name, values in whole.history.arrays().items():
        np.testing.assert_array_equal(result.history.arrays()[name], values, err_msg=name)


def test_other_values_are_another_run(tmp_path):
    train(dataclasses.replace(MANY, seeds=(0,)), tmp_path)
    with pytest.raises(BadInputError, match="holds another experiment"):
        train(dataclasses.replace(MANY, seeds=(0,), variants=grid(step_size=(0.1, 0.5))), tmp_path)


def test_saved_and_read(tmp_path):
    save_experiment(MANY, tmp_path / "experiment.json")
    assert load_experiment(tmp_path / "experiment.json").variants == SEVERAL
    old = json.loads(json.dumps(to_json(BASE)))
    del old["variants"]  # as older versions wrote it
    assert from_json(old).variants == ()


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"step": (1, 2)}, r"step is no setting of Tabular\w*: choose from .*step_size"),
        ({"epsilon_steps": (1, 2)}, "epsilon_steps cannot vary within one program, .*: choose from "),
        ({"step_size": (0.1, 2.0)}, r"step_size must be .*, not 2.0"),
        ({"step_size": (0.1, 0.1)}, "variants must be different, each only once"),
        ({"step_size": ()}, "variants: step_size needs at least one value"),
        (
            {"step_size": (0.1, 0.2), "gamma": (0.9,)},
            "variants need as many values of each setting, not 2 of",
        ),
        ({"step_size": 0.1}, r"variants must have numbers by setting, such as \{'learning_rate'"),
        ({"step_size": ("fast",)}, "variants must have numbers by setting"),
    ],
)
def test_bad_variants(variants, message):
    with pytest.raises(BadInputError, match=message):
        dataclasses.replace(BASE, variants=variants)


def test_what_switches_code_off_cannot_vary():
    """Clipping is left out of the optimiser at 0."""
    with pytest.raises(
        BadInputError, match="max_grad_norm cannot vary within one program, because"
    ) as refused:
        Experiment(
            algorithm=baselines.make("iql"),
            environment=envs.make("two-step"),
            seeds=(0,),
            env_steps=100,
            variants=grid(max_grad_norm=(1.0, 10.0)),
        )
    assert "learning_rate" in str(refused.value) and "\n" not in str(refused.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Branching(TabularLearning):
    """Branches on a number that its annotation says nothing about."""

    bonus: float = 0.0

    def bind(self, game, num_envs):
        return super().bind(game, num_envs + int(self.bonus > 9))


def test_what_turns_out_to_decide_the_code_cannot_vary(tmp_path):
    algorithm = Branching(
        **{field.name: getattr(BASE.algorithm, field.name) for field in dataclasses.fields(BASE.algorithm)}
    )
    experiment = dataclasses.replace(BASE, algorithm=algorithm, variants=grid(bonus=(0.0, 2.0)))
    with pytest.raises(BadInputError, match="bonus cannot vary within one program") as refused:
        train(experiment, tmp_path / "run")
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_traced_scalars_are_put_anywhere():
    algorithm = baselines.make("qtran-base")
    scalar = jnp.float32(-1.0)  # out of range, which nobody can see of a tracer
    copy = traced(algorithm, {"learning_rate": scalar, "opt_weight": scalar})
    found, before = leaves(copy), leaves(algorithm)
    assert found["learning_rate"].value is scalar and found["opt_weight"].value is scalar
    assert found["gamma"] == before["gamma"] and before["learning_rate"].value > 0
    assert is_float(before["gamma"]) and not is_float(before["batch_size"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_real_number_varies_or_is_refused(name):
    """With one clear line: no error of JAX's reaches the user. Steps of gradients always vary."""
    for game in ("two-step", "matrix-pr2", "differential", "four-rooms", "tiger", "hmm", "private-cards"):
        algorithm = baselines.make(name, environments.lookup(game).family)
        experiment = Experiment(
            algorithm=algorithm, environment=envs.make(game), seeds=(0,), env_steps=3000, evaluations=1
        )
        try:
            experiment.schedule  # noqa: B018  binds the algorithm
        except BadInputError:
            continue
        break
    else:
        pytest.fail(f"no game for {name}")
    varied = set()
    for setting, leaf in leaves(algorithm).items():
        for other in (leaf.value * 0.9, leaf.value + 0.01):
            if not can_vary(leaf) or other == leaf.value:
                continue
            try:
                Program(
                    dataclasses.replace(experiment, variants=((setting, (leaf.value, other)),))
                ).check_variants()
            except BadInputError as error:
                assert "\n" not in str(error)
                continue
            varied.add(setting)
            break
    assert not {"learning_rate", "step_size"} & set(leaves(algorithm)) - varied


def test_a_variant_that_diverges_leaves_the_others_alone(tmp_path):
    """Its metrics are NaN from then on, the others' bits those of the others alone; also after a stop."""
    experiment = Experiment(
        algorithm=baselines.make("vdn", hidden=(4,), learning_starts=1, batch_size=2),
        environment=matrix_game([[1.0, 0.0], [0.0, 0.0]]),
        seeds=(0, 1),
        env_steps=30,
        evaluations=3,
        evaluation_episodes=1,
        bitwise_seeds=True,
        variants=grid(learning_rate=(1e-3, 1e38, 1e-2)),
    )
    with pytest.raises(InterruptedRunError):
        train(experiment, tmp_path, tracker=StopAt(20))
    table = train(experiment, tmp_path).history.arrays()
    others = dataclasses.replace(experiment, variants=grid(learning_rate=(1e-3, 1e-2)))
    for name, values in train(others).history.arrays().items():
        if name != "env_steps":
            np.testing.assert_array_equal(table[name][:, [0, 1, 4, 5]], values)
            assert np.isnan(table[name][1:, [2, 3]]).all()
    with pytest.raises(
        DivergedError, match=r"learning_rate 1e\+38 seed 0, learning_rate 1e\+38 seed 1, learn"
    ):
        train(dataclasses.replace(experiment, variants=grid(learning_rate=(1e38, 2e38))))
