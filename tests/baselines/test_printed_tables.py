"""`make(id, family)` has the hyper-parameters that the papers print, value by value."""

import pytest

from baselines.families import FAMILY_ENV_STEPS, Q_LEARNING_IDS
from baselines.maven import MAVEN
from baselines.q_learning import QLearning
from baselines.registry import ALGORITHMS, make
from jaxmarl_fac.settings import leaves
from tests.helpers import clock_at

#: QTRAN (arXiv 1905.05408), tables 3 (matrix games), 4 (Gaussian squeeze) and 5 (modified predator-prey),
#: with the widths of section C.2. Rows that a table leaves out are left out here.
QTRAN = ("vdn", "qmix", "qtran-base", "qtran-alt")
QTRAN_TABLES = {
    "matrix": {
        "env_steps": 20_000,
        "learning_rate": 5e-4,
        "replay_size": 20_000,
        "batch_size": 32,
        "epsilon_start": 1.0,
        "epsilon_end": 1.0,
        "hidden": (32, 32),
        "opt_weight": 1.0,
        "nopt_weight": 1.0,
    },
    "squeeze": {
        "env_steps": 1_000_000,
        "learning_rate": 5e-4,
        "replay_size": 200_000,
        "epsilon_steps": 500_000,
        "batch_size": 32,
        "opt_weight": 1.0,
        "nopt_weight": 1.0,
    },
    "predator-prey": {
        "env_steps": 10_000_000,
        "gamma": 0.99,
        "learning_rate": 5e-4,
        "target_period": 10_000,
        "replay_size": 1_000_000,
        "epsilon_start": 1.0,
        "epsilon_end": 0.1,
        "epsilon_steps": 3_000_000,
        "batch_size": 32,
        "hidden": (64, 64, 64),
        "joint_hidden": (64, 64),
        "mixer_embed": 64,
        "opt_weight": 1.0,
        "nopt_weight": 1.0,
    },
}
#: Rows that VDN and QMIX do not have.
QTRANS_OWN = {"opt_weight", "nopt_weight", "joint_hidden"}
#: ReMIX (arXiv 2302.05593), table 2 and section D.3; the table's name of each row is beside it.
REMIX_TABLE_2 = {
    "batch_size": 128,  # batch size
    "replay_size": 10_000,  # replay buffer, in episodes
    "learning_rate": 0.001,  # learning rate
    "td_lambda": 0.6,  # TD-lambda
    "epsilon_start": 0.995,
    "epsilon_end": 0.05,
    "epsilon_steps": 100_000,
    "w_min": 0.1,  # range of the weights: [.1, 1]
    "central_factor": 0.5,  # PyMARL2's, on which it builds
}
#: Steps of the longest episode.
TIME_LIMITS = {"stag-hunt": 200, "smax": 100}


def settings_of(algorithm_id, family):
    return {name: leaf.value for name, leaf in leaves(make(algorithm_id, family)).items()}


@pytest.mark.parametrize("family", QTRAN_TABLES)
@pytest.mark.parametrize("algorithm_id", QTRAN)
def test_qtrans_tables_3_to_5(algorithm_id, family):
    table = QTRAN_TABLES[family]
    found = settings_of(algorithm_id, family)
    lacking = {"env_steps", "mixer_embed"} - set(found) | (set() if "qtran" in algorithm_id else QTRANS_OWN)
    printed = {name: value for name, value in table.items() if name not in lacking}
    assert {name: found.get(name) for name in printed} == printed
    assert FAMILY_ENV_STEPS[family] == table["env_steps"]


@pytest.mark.parametrize("family", TIME_LIMITS)
def test_remixs_table_2(family):
    found = settings_of("remix", family)
    assert {name: found[name] for name in REMIX_TABLE_2} == REMIX_TABLE_2
    assert (found["consumes"], found["recurrent"], found["optimiser"]) == ("episodes", True, "adam")
    # Target update: every 200 episodes, in steps of whole ones.
    assert found["target_period"] * found["update_period"] == 200 * TIME_LIMITS[family]
    assert found["learning_starts"] == found["batch_size"] * TIME_LIMITS[family]


@pytest.mark.parametrize(("family", "alpha"), [("stag-hunt", 0.1), ("smax", 0.5)])
@pytest.mark.parametrize("algorithm_id", ["cw-qmix", "ow-qmix"])
def test_alpha_of_weighted_qmix(algorithm_id, family, alpha):
    """ReMIX, section 5.4: .1 on predator-prey, .5 on SMAC."""
    assert settings_of(algorithm_id, family)["alpha"] == alpha


#: Weighted QMIX's release on the stag hunt (`pred_prey_punish`): one update of 32 episodes after each.
STAG_HUNT = {
    "gamma": 0.99,
    "consumes": "episodes",
    "recurrent": True,
    "hidden": (64,),
    "optimiser": "rmsprop",
    "learning_rate": 5e-4,
    "rmsprop_decay": 0.99,
    "rmsprop_eps": 1e-5,
    "max_grad_norm": 10.0,
    "batch_size": 32,
    "replay_size": 5000,
    "target_period": 200,
    "update_period": 200,
    "epsilon_start": 1.0,
    "epsilon_end": 0.05,
    "epsilon_steps": 50_000,
    "td_lambda": 0.0,
    "double_q": True,
    "hypernet_hidden": (64,),
    "mixer_embed": 32,
    "central_hidden": (256, 256, 256),
    "alpha": 0.1,
    "central_factor": 1.0,  # the release has no 1/2
}


@pytest.mark.parametrize("algorithm_id", ["cw-qmix", "ow-qmix"])
def test_weighted_qmixs_release_on_the_stag_hunt(algorithm_id):
    found = settings_of(algorithm_id, "stag-hunt")
    assert {name: found[name] for name in STAG_HUNT} == STAG_HUNT


@pytest.mark.parametrize("algorithm_id", QTRAN)
def test_qtrans_predator_prey_has_no_double_q(algorithm_id):
    """Neither has its release, for any of its learners."""
    assert settings_of(algorithm_id, "predator-prey")["double_q"] is False


@pytest.mark.parametrize("family", TIME_LIMITS)
def test_qattens_release(family):
    """PyMARL2's: a hidden query layer for each of four heads."""
    found = settings_of("qatten", family)
    assert (found["heads"], found["head_embed"], found["query_per_head"]) == (4, 32, True)


@pytest.mark.parametrize(
    ("family", "kernels", "kernel_hidden"),
    [
        ("matrix", 10, (64, 64)),  # the release's, on matrix games: networks of three layers
        ("stag-hunt", 4, (64,)),  # PyMARL2's, with which ReMIX compares: of two
        ("smax", 4, (64,)),
    ],
)
def test_qplexs_networks(family, kernels, kernel_hidden):
    found = settings_of("qplex", family)
    assert (found["kernels"], found["kernel_hidden"]) == (kernels, kernel_hidden)
    # The release has one gradient and one weight, and its attention on StarCraft alone, as a variant.
    assert (found["stop_gradient"], found["minus_one"], found["weighted_head"]) == (True, True, True)
    assert (found["attention_heads"], found["attention_embed"], found["attention_penalty"]) == (0, 32, 1e-3)


#: PyMARL's QTRAN (`qtran.yaml`), which Weighted QMIX's and ReMIX's experiments take.
PYMARLS_QTRAN = {
    "opt_weight": 1.0,  # opt_loss
    "nopt_weight": 0.1,  # nopt_min_loss
    "joint_hidden": (64, 64),  # mixing_embed_dim 64, network_size small
    "double_q": True,
    "global_state": True,  # qtran_arch qtran_paper
    "target": "q_jt",
    "aggregate": "sum",
}


@pytest.mark.parametrize("family", TIME_LIMITS)
@pytest.mark.parametrize("algorithm_id", ["qtran-base", "qtran-alt"])
def test_pymarls_qtran(algorithm_id, family):
    found = settings_of(algorithm_id, family)
    assert {name: found[name] for name in PYMARLS_QTRAN} == PYMARLS_QTRAN


@pytest.mark.parametrize("family", QTRAN_TABLES)
@pytest.mark.parametrize("algorithm_id", ["qtran-base", "qtran-alt"])
def test_qtrans_own_joint_networks_see_what_the_agents_see(algorithm_id, family):
    """Section 3.2: functions of the agents' features; neither paper nor release has a state."""
    assert settings_of(algorithm_id, family)["global_state"] is False


#: LTQL's release in the pursuit (`catch_prey/LTQL/run.py` and `ltql.py`), of 100,000 epochs of 32 games.
PURSUIT = {
    "hidden": (50, 50),
    "shared_layers": False,  # a network for each action
    "agent_ids": False,
    "batch_size": 1024,
    "replay_size": 200_000,
    "learning_starts": 2048,
    "learning_rate": 1e-5,
    "target_period": 50,
    "gamma": 0.99,
    "alpha": 1.0,
    "second_if": "elif",
    "useful_share": True,
    "boltzmann_share": 0.5,
    "temperature_start": 0.5,
    "temperature_end": 0.05,
    "epsilon_start": 0.0,
    "epsilon_end": 0.0,
}


def test_ltqls_release_in_the_pursuit():
    found = settings_of("ltql", "pursuit")
    assert {name: found[name] for name in PURSUIT} == PURSUIT


@pytest.mark.parametrize("algorithm_id", Q_LEARNING_IDS)
def test_all_explore_alike_in_the_pursuit(algorithm_id):
    """The temperature is max(.05, .5 (1 - e / 15,000)) after e epochs."""
    found = settings_of(algorithm_id, "pursuit")
    assert all(found[name] == PURSUIT[name] for name in PURSUIT if name.startswith(("boltz", "temp", "eps")))
    algorithm, steps = make(algorithm_id, "pursuit"), FAMILY_ENV_STEPS["pursuit"]
    for epoch in (0, 5000, 13_400, 13_500, 15_000, 99_999):
        clock = clock_at(env_steps=epoch * steps // 100_000)
        expected = max(0.05, 0.5 * (1 - epoch / 15_000))
        assert float(algorithm.boltzmann.temperature(clock)) == pytest.approx(expected, abs=1e-5)


def test_who_learns_action_values_from_replay():
    kinds = {name: type(entry.algorithm) for name, entry in ALGORITHMS.items()}
    assert {name for name, kind in kinds.items() if issubclass(kind, QLearning)} == {*Q_LEARNING_IDS, "maven"}
    assert kinds["maven"] is MAVEN  # it explores by its latent too
    assert settings_of("maven", "pursuit")["boltzmann_share"] == 0


def test_malibs_fmq_takes_one_action_in_ten_at_random():
    found = settings_of("fmq", "matrix")
    assert (found["epsilon"], found["learning_rate"], found["gamma"]) == (0.1, 0.9, 0.95)
    assert (found["weight"], found["temperature"]) == (10, 500)
