import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
from baselines import probes
from baselines.probes import joint_tables
from baselines.registry import OLD_CLASSES, id_of
from baselines.two_player import Match
from envs.matrix_games import matrix_game, random_payoffs, two_step_game
from envs.predator_prey import PredatorPrey
from jaxmarl_fac.experiment import Experiment, seed_numbers
from jaxmarl_fac.saved import from_json, load_experiment, save_experiment, to_json
from jaxmarl_fac.settings import leaves

PLAIN = Experiment(
    algorithm=baselines.make("vdn"), environment=matrix_game([[1, 2], [3, 4]]), seeds=(0, 1), env_steps=100
)


def changed(**fields):
    return dataclasses.replace(PLAIN, **fields)


def batch_of_games():
    payoffs = random_payoffs(0, 5)
    one = matrix_game(payoffs[0])
    return one.replace(
        payoff=payoffs[:, None],
        next_stage=jnp.broadcast_to(one.next_stage, (5, 1, 3, 3)),
        start=jnp.ones((5, 1)),
    )


def assert_same(one, other):
    """Equal in every field; arrays in every bit, dtype and shape; functions and types the same objects."""
    assert type(one) is type(other)
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, jax.Array | np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    else:
        assert one == other


@pytest.mark.parametrize(
    "experiment",
    [
        PLAIN,
        changed(algorithm=baselines.make("qmix", hypernet_hidden=(64,), learning_rate=0.1 + 0.2)),
        changed(
            algorithm=baselines.make("qtran-alt", nopt_min="printed", target="q_max"),
            environment=batch_of_games(),
            games=5,
            probe=joint_tables,
        ),
        changed(
            algorithm=baselines.make("qtran-base", "predator-prey"),
            environment=PredatorPrey(jnp.float32(1 / 3)),
        ),
        changed(
            environment=two_step_game(), seeds=(7,), env_steps=999, num_envs=4, root_key=5, evaluations=3
        ),
    ],
    ids=["plain", "qmix", "games-and-probe", "predator-prey", "two-step"],
)
def test_round_trip(tmp_path, experiment):
    assert_same(from_json(json.loads(json.dumps(to_json(experiment)))), experiment)
    save_experiment(experiment, tmp_path / "experiment.json")
    assert_same(load_experiment(tmp_path / "experiment.json"), experiment)


def test_arrays_come_back_with_the_same_bits():
    """Subnormals, extremes, thirds and signed zeros, in every dtype that environments have."""
    tiny, huge = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    for array in (
        np.asarray([1 / 3, 0.1, -0.0, tiny, -huge, 16777217, 1e-30], np.float32),
        np.asarray([[-128, 127]], np.int8),
        np.asarray([True, False]),
        np.asarray(2**31 - 1, np.int32),
        np.zeros((2, 0, 3), np.float32),
        np.float64([1 / 3]),
    ):
        back = from_json(json.loads(json.dumps(to_json(array))))
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert np.asarray(back).tobytes() == array.tobytes()


def test_a_probe_comes_back_as_the_function():
    assert to_json(joint_tables) == {"type": "function", "name": "joint_tables"}
    assert from_json(to_json(joint_tables)) is joint_tables


@pytest.mark.parametrize(
    "old",
    [
        "baselines.actor_critic:greedy_actions_of",
        "baselines.two_player:joint_policy",
        "jaxmarl_fac.inspection:joint_tables",
    ],
)
def test_names_from_before_a_move_still_load(old):
    name = old.partition(":")[2]
    found = from_json({"type": "function", "name": old})
    assert found is getattr(probes, name)
    assert to_json(found) == {"type": "function", "name": name}


RECORDS = sorted((Path(__file__).parents[2] / "results").glob("*/*.json"))
#: By module, what records and runs named so before names without a module came; records made anew lose them.
OLD_NAMES = {
    "baselines.actor_critic": "greedy_actions_of",
    "baselines.ddpg": "DDPG DDPGOM MADDPG",
    "baselines.hysteretic": "Hysteretic TabularDistributed TabularHysteretic",
    "baselines.iql": "IQL TabularIQL",
    "baselines.iterated_games": "FMQ FMQRule JointActionLearner JointActionRule WoLFPHC WoLFRule",
    "baselines.ltql": "LTQL TabularLTQL",
    "baselines.masql": "MASQL",
    "baselines.opponent_modelling": "BalancingRule PR2Q PR2Rule "
    "RommeoQ RommeoQEmpirical RommeoRule RommeoThesisRule",
    "baselines.pr2_ac": "PR2AC",
    "baselines.probes": "noise_free_return tables wins",
    "baselines.qatten": "Qatten",
    "baselines.qmix": "QMIX",
    "baselines.qplex": "QPLEX",
    "baselines.qtran": "QTranAlt QTranBase",
    "baselines.remix": "ReMIX",
    "baselines.rommeo_ac": "ROMMEOAC",
    "baselines.two_player": "Match joint_policy",
    "baselines.vdn": "VDN",
    "baselines.wqmix": "CWQMIX OWQMIX",
    "envs.catch_prey": "CatchPrey",
    "envs.differential_game": "DifferentialGame",
    "envs.gaussian_squeeze": "GaussianSqueeze",
    "envs.matrix_games": "MatrixGame",
    "envs.predator_prey": "PredatorPrey",
    "envs.stag_hunt": "StagHunt",
    "envs.team_mdp": "TeamMDP",
    "jaxmarl_fac.experiment": "Experiment",
    "jaxmarl_fac.inspection": "joint_tables",
}


def test_every_old_name_loads_and_every_one_in_the_records_of_results():
    """They were written over many versions."""
    named = re.compile(r'"(?:type|name)": "((?:baselines|jaxmarl_fac|envs)[.\w]*:\w+)"')
    names = {name for record in RECORDS for name in named.findall(record.read_text(encoding="utf-8"))}
    names |= {f"{module}:{name}" for module, found in OLD_NAMES.items() for name in found.split()}
    assert len(names) > 40 and "jaxmarl_fac.inspection:joint_tables" in names
    for name in names:
        if name.partition(":")[2] in OLD_CLASSES:  # an algorithm, which is composed of values now
            assert id_of(from_json({"type": name})) is not None, name
        else:
            assert callable(from_json({"type": "function", "name": name})), name


def experiments_in(value):
    """Every experiment in a record, as plain JSON."""
    if isinstance(value, dict) and value.get("type", "").endswith("Experiment"):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from experiments_in(item)


@pytest.mark.slow
def test_every_experiment_in_the_records_of_results_is_what_it_was():
    """Algorithms too, which were flat then: each setting has the value that is recorded."""
    count = 0
    for record in RECORDS:
        for told in experiments_in(json.loads(record.read_text(encoding="utf-8"))):
            loaded = from_json(told)
            fields = {name: to_json(getattr(loaded, name)) for name in told if name != "type"}
            algorithm, match = told["algorithm"], isinstance(loaded.algorithm, Match)
            for name, value in algorithm.items():
                if name not in ("type", "rule", "row", "column"):
                    # The rules of a match have settings of one name: its own are found by field.
                    whole = match or isinstance(value, dict)  # newer records are composed of values too
                    own = getattr(loaded.algorithm, name) if whole else leaves(loaded.algorithm)[name].value
                    assert to_json(own) == value, (record.name, algorithm["type"], name)
            for name in told.keys() - {"type", "algorithm", "environment", "probe"}:
                assert fields[name] == told[name], (record.name, name)
            for name in told["environment"].keys() - {"type"}:
                assert fields["environment"][name] == told["environment"][name], (record.name, name)
            assert_same(from_json(json.loads(json.dumps(to_json(loaded)))), loaded)
            count += 1
    assert count > 140


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "subprocess:run", "envsx.a:b", "numpy:load"])
def test_foreign_names_are_refused(bad_input, tmp_path, name):
    with bad_input(f"{name} is not a part of this suite"):
        from_json({"type": "function", "name": name})
    with bad_input(f"{name} is not a part of this suite"):
        from_json({"type": name, "command": "true"})
    record = {**to_json(PLAIN), "probe": {"type": "function", "name": name}}
    (tmp_path / "experiment.json").write_text(json.dumps(record))
    with bad_input(f"{name} is not a part of this suite"):
        load_experiment(tmp_path / "experiment.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"5",
        b"{}",
        b'{"type": "jaxmarl_fac.experiment:Experiment"}',
        b'{"type": "baselines.vdn:VDN"}',
        b'{"type": "baselines.vdn:VDM"}',
        b'{"type": "baselines.vdm:VDN"}',
        b'{"type": "baselines.vdn:VDN", "learning_rate": -1}',
        b'{"type": "baselines.vdn:VDN", "momentum": 1}',
        b'{"type": 5}',
    ],
)
def test_files_that_hold_no_experiment(bad_input, tmp_path, content):
    path = tmp_path / "experiment.json"
    path.write_bytes(content)
    with bad_input(f"{path} holds no experiment"):
        load_experiment(path)


def test_files_that_cannot_be_read(bad_input, tmp_path):
    with bad_input(f"there is no {tmp_path / 'experiment.json'}"):
        load_experiment(tmp_path / "experiment.json")
    (tmp_path / "file").write_text("")
    with bad_input(str(tmp_path / "file" / "experiment.json")):
        load_experiment(tmp_path / "file" / "experiment.json")
    with bad_input(str(tmp_path)):
        load_experiment(tmp_path)  # a folder


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"seeds": ()}, "at least one seed"),
        ({"seeds": (0, -1)}, "seeds must be in [0, 4294967295], not (0, -1)"),
        ({"seeds": (3, 1, 3)}, "different numbers"),
        ({"env_steps": 0}, "env_steps must be at least 1, not 0"),
        ({"env_steps": -5}, "env_steps must be at least 1, not -5"),
        ({"num_envs": 0}, "num_envs must be at least 1"),
        ({"updates_per_step": 0}, "updates_per_step must be at least 1"),
        *(
            ({"updates_per_step": many}, f"must be at most 256, as each is compiled by itself, not {many}")
            for many in (257, 2**31 - 1, 2**31)
        ),
        ({"evaluations": 0}, "evaluations must be at least 1"),
        ({"evaluation_episodes": 0}, "evaluation_episodes must be at least 1"),
        ({"games": -1}, "games must be 0"),
        ({"matmul_precision": "exact"}, "matmul_precision must be default or high or highest or"),
        ({"env_steps": 10, "evaluations": 11}, "ask for at most 10"),
        ({"env_steps": 10, "num_envs": 3, "evaluations": 5}, "ask for at most 4"),
    ],
)
def test_bad_experiments(bad_input, fields, says):
    with bad_input(says):
        changed(**fields)


def test_what_is_counted():
    assert changed(env_steps=100, num_envs=3).iterations == 34  # the last one is made whole
    assert changed(env_steps=99, num_envs=3).iterations == 33
    assert PLAIN.lanes == 2
    assert changed(environment=batch_of_games(), games=5).lanes == 10


def test_a_record_is_never_half_written(tmp_path, monkeypatch):
    """A run that is killed while it writes its record must be able to start again."""
    path = tmp_path / "experiment.json"
    save_experiment(PLAIN, path)
    before = path.read_bytes()

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_experiment(changed(env_steps=50), path)
    assert path.read_bytes() == before


def test_parts_that_are_none(bad_input):
    with bad_input("algorithm must have a method bind(game, num_envs), which MatrixGame lacks"):
        changed(algorithm=PLAIN.environment)
    for algorithm in (None, "vdn"):
        with bad_input(f"must have a method bind(game, num_envs), which {type(algorithm).__name__} lacks"):
            changed(algorithm=algorithm)
    with bad_input("algorithm must be an algorithm, not the class QLearning: call it with its settings"):
        changed(algorithm=type(PLAIN.algorithm))
    with bad_input("probe must be a function or None, not str"):
        changed(probe="joint_tables")
    with bad_input("environment must be of type TeamEnvironment, not int"):
        changed(environment=5)
    with bad_input("every array of a batch of 4 games needs a leading axis of as many"):
        changed(environment=batch_of_games(), games=4)
    with bad_input("the number of seeds must be at most 1048576, not 1048577"):
        seed_numbers(2**20 + 1)
    assert seed_numbers(2, first=7) == (7, 8)
