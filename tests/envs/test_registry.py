import inspect
import subprocess
import sys

import jax
import numpy as np
import pytest

import envs
from envs import registry
from envs.base import TeamEnvironment

MATRIX_GAMES = [
    "matrix-qtran",
    "matrix-qplex",
    "matrix-qplex-10",
    "matrix-ltql",
    "matrix-thesis",
    "matrix-thesis-zero-sum",
    "matrix-pr2",
    "differential-grid",
    "matrix-climbing",
    "matrix-climbing-t",
    "matrix-penalty",
    "matrix-21x21",
    "matrix-random",
    "two-step",
    "n-step-matrix",
    "random-state",
]

#: The others are games of a team.
ONE_AGENT = ("four-rooms", "hmm", "tiger")


def random_actions(env, seed):
    rng = np.random.default_rng(seed)
    if env.num_actions == 0:
        return rng.uniform(-1, 1, env.num_agents).astype(np.float32)
    return rng.integers(np.asarray(env.action_spec.num_values)).astype(np.int32)


@pytest.mark.parametrize("env_id", MATRIX_GAMES)
def test_every_game_of_the_papers_has_its_id(env_id):
    entry = registry.lookup(env_id)
    assert isinstance(envs.make(env_id), TeamEnvironment)
    assert entry.family == "matrix"


@pytest.mark.parametrize("env_id", registry.ENVIRONMENTS)
def test_every_entry_says_what_it_is_and_can_be_built_without_parameters(env_id):
    entry = registry.ENVIRONMENTS[env_id]
    assert entry.about
    assert "\n" not in entry.about
    assert len(entry.about) < 100
    assert env_id == env_id.lower().replace("_", "-")
    for parameter in inspect.signature(entry.build).parameters.values():
        assert parameter.default is not parameter.empty
    assert (entry.build().num_agents == 1) == (env_id in ONE_AGENT)


def one_shot_ids():
    made = {env_id: envs.make(env_id) for env_id in registry.ENVIRONMENTS}
    return [env_id for env_id, env in made.items() if env.stateless and env.time_limit == 1]


@pytest.mark.parametrize("env_id", one_shot_ids())
def test_a_stateless_game_of_one_step_is_over_for_good(env_id):
    """Replay relies on that."""
    env = envs.make(env_id)
    state, _ = env.reset(jax.random.key(0))
    actions = np.stack([random_actions(env, seed) for seed in range(8)])
    _, timesteps = jax.jit(jax.vmap(env.step, (None, 0)))(state, actions)
    assert timesteps.last().all()
    np.testing.assert_array_equal(timesteps.discount, np.zeros(8))


def test_make_passes_parameters_on():
    assert float(registry.make("matrix-penalty", k=-7).joint_payoff()[0, 2]) == -7
    env = registry.make("matrix-random", payoff_seed=3, agents=3, actions=4)
    assert env.action_counts == (4, 4, 4)
    again = registry.make("matrix-random", payoff_seed=3, agents=3, actions=4)
    jax.tree.map(np.testing.assert_array_equal, env, again)
    other = registry.make("matrix-random", payoff_seed=4, agents=3, actions=4)
    assert (np.asarray(env.payoff) != np.asarray(other.payoff)).all()


def test_unknown_environment(bad_input):
    for env_id in ("matrix-qtrain", "", "MATRIX-QTRAN"):
        with bad_input(f"unknown environment {env_id!r}: choose one of matrix-qtran, matrix-qplex"):
            registry.make(env_id)
        with bad_input("two-step"):
            registry.lookup(env_id)


@pytest.mark.parametrize("env_id", [None, 3, ["two-step"], registry.make("two-step")])
def test_ids_that_are_no_text(bad_input, env_id):
    with bad_input("the id of an environment must be text, such as 'two-step', not " + type(env_id).__name__):
        registry.make(env_id)


def test_unknown_parameter(bad_input):
    with bad_input("matrix-penalty does not take these parameters"):
        registry.make("matrix-penalty", kk=-3)
    with bad_input("'size'"):
        registry.make("matrix-qtran", size=4)


def test_refused_values_of_parameters(bad_input):
    with bad_input("k must be at most 0, not 3"):
        registry.make("matrix-penalty", k=3)
    with bad_input("k must be a number, not 'deep'"):
        registry.make("matrix-penalty", k="deep")


@pytest.mark.slow
def test_in_a_notebook_jumanji_does_not_choose_the_backend():
    """In a new process, since jumanji decides when it is imported: there it would run a magic of IPython."""
    code = (
        "import builtins, sys, types; builtins.__IPYTHON__ = True;"
        "sys.modules['IPython'] = types.ModuleType('x');"
        "import envs.base; assert builtins.__IPYTHON__ and 'jumanji' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
