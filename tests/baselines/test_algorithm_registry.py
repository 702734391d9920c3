import dataclasses

import pytest

import baselines
from baselines.factored import VDN, Factored
from baselines.families import ALGORITHM_SETTINGS, FAMILY_ENV_STEPS, FAMILY_SETTINGS
from baselines.q_learning import QLearning
from baselines.qtran import QTranAlt, QTranBase
from baselines.registry import ALGORITHMS, id_of, lookup, make, own_settings
from jaxmarl_fac.report.styles import LABELS, STYLES, line_styles
from jaxmarl_fac.settings import leaves
from tests.helpers import flat


@pytest.mark.parametrize("algorithm_id", ["iql", "vdn", "qmix", "qtran-base", "qtran-alt"])
def test_every_algorithm_has_its_id(algorithm_id):
    algorithm = baselines.make(algorithm_id)
    assert isinstance(algorithm, QLearning)
    assert algorithm == lookup(algorithm_id)
    assert flat(algorithm).consumes == "transitions"


def names_within(value):
    """The names of all settings, as often as they occur."""
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        yield from names_within(part) if dataclasses.is_dataclass(part) else (field.name,)


@pytest.mark.parametrize("algorithm_id", ALGORITHMS)
def test_each_setting_has_one_name_and_a_line_about_it(algorithm_id):
    """Names are flags and keys of sweeps: a second one of the same name could not be reached."""
    names = list(names_within(lookup(algorithm_id)))
    assert sorted(names) == sorted(set(names)) == sorted(leaves(lookup(algorithm_id)))
    assert [name for name, leaf in leaves(lookup(algorithm_id)).items() if not leaf.about] == []
    assert ALGORITHMS[algorithm_id].about.endswith(".")


def test_tables_of_families_name_settings_that_there_are():
    known = {name for algorithm_id in ALGORITHMS for name in leaves(lookup(algorithm_id))}
    for family, settings in FAMILY_SETTINGS.items():
        assert set(settings) <= known, family
    for (algorithm_id, family), settings in ALGORITHM_SETTINGS.items():
        assert family in FAMILY_ENV_STEPS
        assert set(settings) <= set(leaves(lookup(algorithm_id)))


#: Differ from another id in one setting.
TWINS = {"rommeo-q-emp": {"model": "empirical"}, "gr2-q-mixture": {"mixture": True}}


@pytest.mark.parametrize("algorithm_id", ALGORITHMS)
def test_an_algorithms_id_is_found_whatever_its_settings(algorithm_id):
    assert id_of(lookup(algorithm_id)) == algorithm_id
    settings = {"gamma": 0.25, "hidden": (3,), "learning_rate": 0.01, "epsilon": 0.25, "batch_size": 7}
    changed = make(algorithm_id, **own_settings(algorithm_id, settings))
    assert changed != lookup(algorithm_id)
    assert id_of(changed) == algorithm_id


def test_ids_that_differ_in_settings_only():
    for algorithm_id, settings in TWINS.items():
        plain = algorithm_id.removesuffix("-emp").removesuffix("-mixture")
        assert id_of(make(plain, **settings)) == algorithm_id


def test_published_figures_keep_their_colours():
    published = {
        "vdn": ("#0072B2", "-"),
        "qmix": ("#E69F00", "-"),
        "qtran-base": ("#009E73", "-"),
        "qtran-alt": ("#D55E00", "-"),
        "qplex": ("#CC79A7", "-"),
        "remix": ("#56B4E9", "-"),
        "ow-qmix": ("#000000", "-"),
        "iql": ("#0072B2", "--"),
        "qatten": ("#E69F00", "--"),
        "cw-qmix": ("#009E73", "--"),
        "ltql": ("#D55E00", "--"),
        "maddpg": ("#56B4E9", ":"),
    }
    assert {name: STYLES[name] for name in published} == published
    others = ["rommeo-ac", "pr2-ac", "masql", "ddpg", "ddpg-om", "maddpg"]  # figure 2 of ROMMEO
    assert [style.colour for style in line_styles(others).values()] == [
        *("#CC79A7", "#009E73", "#000000", "#D55E00", "#E69F00", "#56B4E9"),
    ]


def test_remix_figure_1_can_be_read():
    """Eleven curves side by side: nine colours, and two algorithms that share one differ in dashes."""
    shown = ("iql", "vdn", "qmix", "qtran-base", "qplex", "cw-qmix", "ow-qmix", "remix")
    styles = line_styles([*shown, "vdac-mix", "dop", "fop"])
    assert len({style.colour for style in styles.values()}) == 9
    assert {name for name, style in styles.items() if style.dashes != "-"} == {"iql", "cw-qmix"}


def test_policy_gradients_and_learners_without_replay_have_styles_of_their_own():
    families = {"PolicyGradient", "PQN", "MAVEN", "FOP", "MADDPGDiscrete"}
    learners = {name for name in ALGORITHMS if type(lookup(name)).__name__ in families}
    assert {"coma", "dop", "mappo", "reinforce", "vdac-mix", "pqn-vdn", "maven", "fop"} < learners
    assert learners | {"td3", "matd3"} <= set(STYLES)


def test_no_two_algorithms_share_a_style_or_a_label():
    assert set(STYLES) | set(LABELS) <= set(ALGORITHMS)
    assert len(set(STYLES.values())) == len(STYLES)
    assert len(set(LABELS.values())) == len(LABELS)


def test_what_is_not_registered_has_no_id():
    class Nothing:
        def bind(self, game, num_envs=1): ...

    assert id_of(Nothing()) is None
    assert id_of(QLearning(method=Factored(mixing=VDN()))) == "vdn"


def test_defaults_are_qtrans_table_3():
    for algorithm_id in ("vdn", "qmix", "qtran-base", "qtran-alt"):
        algorithm = flat(make(algorithm_id))
        assert (algorithm.learning_rate, algorithm.batch_size, algorithm.replay_size) == (5e-4, 32, 20_000)
        assert algorithm.hidden == (32, 32)
        assert (algorithm.epsilon_start, algorithm.epsilon_end) == (1, 1)
        assert (algorithm.target_period, algorithm.gamma) == (10_000, 0.99)
    for algorithm_id in ("qtran-base", "qtran-alt"):
        algorithm = flat(make(algorithm_id))
        assert (algorithm.opt_weight, algorithm.nopt_weight) == (1, 1)
        assert (algorithm.target, algorithm.aggregate, algorithm.state_value) == ("q_jt", "sum", "auto")
    assert flat(make("qtran-alt")).nopt_min == "signed"
    assert FAMILY_ENV_STEPS["matrix"] == 20_000


def test_families_have_the_settings_of_their_tables():
    for algorithm_id in ("iql", "vdn", "qmix", "qtran-base", "qtran-alt"):
        algorithm = flat(make(algorithm_id, "predator-prey"))
        assert algorithm.hidden == (64, 64, 64)
        assert (algorithm.replay_size, algorithm.epsilon_end, algorithm.epsilon_steps) == (
            10**6,
            0.1,
            3 * 10**6,
        )
    assert flat(make("qtran-base", "predator-prey")).joint_hidden == (64, 64)
    assert flat(make("qmix", "predator-prey")).mixer_embed == 64
    assert flat(make("vdn", "squeeze")).replay_size == 200_000
    assert make("vdn", "jumanji") == make("vdn")  # a family without a table


def test_overrides_win():
    algorithm = flat(make("qmix", "predator-prey", hidden=(7,), mixer_embed=3, learning_rate=0.25))
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


@pytest.mark.parametrize("algorithm_id", [None, 3, ["vdn"], make("vdn")])
def test_ids_that_are_no_text(bad_input, algorithm_id):
    with bad_input("the id of an algorithm must be text, such as 'qmix', not " + type(algorithm_id).__name__):
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
        ("vdn", {"target_period": -1}, "target_period must be 0 (for target_rate) or above, not -1"),
        ("vdn", {"target_rate": 1.5}, "target_rate must be in [0, 1], not 1.5"),
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
    make("vdn", target_period=0, target_rate=1.0)
    make("qtran-alt", opt_weight=0.0, nopt_weight=0.0, joint_hidden=(1,), target="q_max")


def test_an_unknown_family_is_refused(bad_input):
    for family in (None, ["matrix"]):
        with bad_input(f"unknown family {family}: choose one of matrix"):
            make("vdn", family)
    with bad_input("unknown family 'nofamily': choose one of matrix, squeeze"):
        make("iql", "nofamily")
