import dataclasses

import pytest

import baselines
from baselines.q_learning import QLearner
from baselines.qtran import QTranAlt, QTranBase
from baselines.registry import FAMILY_ENV_STEPS, lookup, make, own_settings


@pytest.mark.parametrize("algorithm_id", ["iql", "vdn", "qmix", "qtran-base", "qtran-alt"])
def test_every_algorithm_has_its_id(algorithm_id):
    algorithm = baselines.make(algorithm_id)
    assert isinstance(algorithm, QLearner)
    assert type(algorithm) is lookup(algorithm_id)
    assert algorithm.consumes == "transitions"


def test_defaults_are_qtrans_table_3():
    for algorithm_id in ("vdn", "qmix", "qtran-base", "qtran-alt"):
        algorithm = make(algorithm_id)
        assert (algorithm.learning_rate, algorithm.batch_size, algorithm.replay_size) == (5e-4, 32, 20_000)
        assert algorithm.hidden == (32, 32)
        assert (algorithm.epsilon_start, algorithm.epsilon_end) == (1, 1)
        assert (algorithm.target_period, algorithm.gamma) == (10_000, 0.99)
    for algorithm_id in ("qtran-base", "qtran-alt"):
        algorithm = make(algorithm_id)
        assert (algorithm.opt_weight, algorithm.nopt_weight) == (1, 1)
        assert (algorithm.target, algorithm.aggregate, algorithm.state_value) == ("q_jt", "sum", "auto")
    assert make("qtran-alt").nopt_min == "signed"
    assert FAMILY_ENV_STEPS["matrix"] == 20_000


def test_families_have_the_settings_of_their_tables():
    for algorithm_id in ("iql", "vdn", "qmix", "qtran-base", "qtran-alt"):
        algorithm = make(algorithm_id, "predator-prey")
        assert algorithm.hidden == (64, 64, 64)
        assert (algorithm.replay_size, algorithm.epsilon_end, algorithm.epsilon_steps) == (
            10**6,
            0.1,
            3 * 10**6,
        )
    assert make("qtran-base", "predator-prey").joint_hidden == (64, 64)
    assert make("qmix", "predator-prey").mixer_embed == 64
    assert make("vdn", "squeeze").replay_size == 200_000
    assert make("vdn", "a family without a table") == make("vdn")


def test_overrides_win():
    algorithm = make("qmix", "predator-prey", hidden=(7,), mixer_embed=3, learning_rate=0.25)
    assert (algorithm.hidden, algorithm.mixer_embed, algorithm.learning_rate) == ((7,), 3, 0.25)
    assert algorithm.replay_size == 10**6


def test_own_settings():
    settings = {"hidden": (7,), "mixer_embed": 3, "num_envs": 8}
    assert own_settings("qmix", settings) == {"hidden": (7,), "mixer_embed": 3}
    assert own_settings("vdn", settings) == {"hidden": (7,)}


def test_algorithms_are_values():
    """Equal settings make equal algorithms, which is what compiled functions are kept by."""
    assert make("vdn") == make("vdn")
    assert hash(make("qmix")) == hash(make("qmix"))
    assert make("vdn") != make("vdn", gamma=0.5)
    assert QTranBase() != QTranAlt()
    with pytest.raises(dataclasses.FrozenInstanceError):
        make("vdn").gamma = 0.5


def test_unknown_algorithm(bad_input):
    for algorithm_id in ("qtran", "", "VDN"):
        with bad_input(f"unknown algorithm {algorithm_id!r}: choose one of iql, vdn, qmix, qtran-base"):
            make(algorithm_id)


def test_unknown_setting(bad_input):
    with bad_input("vdn has no setting 'mixer_embed': it has adam_eps, agent_ids, batch_size"):
        make("vdn", mixer_embed=3)
    with bad_input("qtran-base has no setting 'nopt_min'"):
        make("qtran-base", nopt_min="signed")


NAN = float("nan")


@pytest.mark.parametrize(
    ("algorithm_id", "settings", "says"),
    [
        ("vdn", {"learning_rate": 0.0}, "learning_rate must be above 0, not 0.0"),
        ("vdn", {"learning_rate": -1.0}, "learning_rate must be above 0"),
        ("vdn", {"learning_rate": NAN}, "learning_rate must be above 0"),
        (
            "vdn",
            {"learning_rate_schedule": "cosine"},
            "learning_rate_schedule must be constant or linear, not cosine",
        ),
        ("vdn", {"adam_eps": 0.0}, "adam_eps must be above 0"),
        ("vdn", {"max_grad_norm": -1.0}, "max_grad_norm must be 0 (off) or above"),
        ("vdn", {"batch_size": 0}, "batch_size must be at least 1"),
        (
            "vdn",
            {"batch_size": 64, "replay_size": 32},
            "replay_size must be at least batch_size (64), not 32",
        ),
        ("vdn", {"learning_starts": 0}, "learning_starts must be at least 1"),
        ("vdn", {"gamma": 1.01}, "gamma must be in [0, 1]"),
        ("vdn", {"gamma": NAN}, "gamma must be in [0, 1]"),
        ("vdn", {"target_period": 0}, "target_period must be at least 1"),
        ("vdn", {"hidden": ()}, "hidden must be one or more widths"),
        ("vdn", {"hidden": (32, 0)}, "hidden must be one or more widths"),
        ("vdn", {"epsilon_start": -0.1}, "epsilon_start must be in [0, 1]"),
        ("vdn", {"epsilon_end": 1.5}, "epsilon_end must be in [0, 1]"),
        ("vdn", {"epsilon_steps": 0}, "epsilon_steps must be at least 1"),
        ("qmix", {"mixer_embed": 0}, "mixer_embed"),
        ("qmix", {"hypernet_hidden": (0,)}, "hypernet_hidden"),
        ("qtran-base", {"opt_weight": -1.0}, "opt_weight must be 0 or above, not -1.0"),
        ("qtran-base", {"nopt_weight": NAN}, "nopt_weight must be 0 or above, not nan"),
        ("qtran-base", {"joint_hidden": ()}, "joint_hidden must be one or more widths"),
        ("qtran-alt", {"joint_hidden": (32, 0)}, "joint_hidden must be one or more widths"),
        ("qtran-base", {"state_value": "yes"}, "state_value must be auto or on or off, not yes"),
        ("qtran-base", {"aggregate": "max"}, "aggregate must be sum or mean, not max"),
        ("qtran-base", {"target": "q_max"}, "target must be q_jt or q_prime, not q_max"),
        ("qtran-alt", {"target": "q"}, "target must be q_jt or q_prime or q_max, not q"),
        ("qtran-alt", {"nopt_min": "unsigned"}, "nopt_min must be signed or printed, not unsigned"),
    ],
)
def test_settings_that_cannot_be(bad_input, algorithm_id, settings, says):
    with bad_input(says):
        make(algorithm_id, **settings)


def test_the_largest_and_smallest_settings_that_can_be():
    make("vdn", gamma=0.0, epsilon_start=0.0, epsilon_end=0.0, batch_size=1, replay_size=1, learning_starts=1)
    make("vdn", gamma=1.0, max_grad_norm=0.0, target_period=1, hidden=(1,))
    make("qtran-alt", opt_weight=0.0, nopt_weight=0.0, joint_hidden=(1,), target="q_max")
