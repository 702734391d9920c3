import dataclasses
import doctest
import math
from typing import Annotated, Literal, get_type_hints

import docstring_parser
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
from envs import ranges
from envs.matrix_games import QTRAN_PAYOFF, matrix_game
from jaxmarl_fac import settings
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.settings import (
    AnyWidths,
    Beta,
    Count,
    EvenCount,
    OffOrAbove,
    Probability,
    Settings,
    Widths,
    above,
    flags_class,
    leaves,
    replaced,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base(Settings):
    rate: Annotated[float, above(0)] = 0.1
    share: Probability = 0.5
    clip: OffOrAbove = 0.0
    beta: Beta = 1.0
    plain: float = 0.0
    maybe: float | None = None
    batch: Count = 32
    pairs: EvenCount = 4
    offset: int = 0
    hidden: Widths = (8,)
    extra: AnyWidths = ()
    kind: Literal["adam", "rmsprop"] = "adam"
    flag: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Derived(Base):
    """Other defaults, the same ranges."""

    rate: float = 0.2
    batch: int = 64


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rate": 0}, "rate must be above 0, not 0"),
        ({"rate": math.nan}, "rate must be above 0, not nan"),
        ({"rate": math.inf}, "rate must be a finite number, not inf"),
        ({"rate": 10**400}, "rate must be a finite number, not 1000000000000000000000000000000000000000..."),
        ({"rate": 1e39}, "rate must be at most 3.4e+38, to fit into 32 bits, not 1e+39"),
        ({"rate": np.float64(-1)}, "rate must be above 0, not -1.0"),
        ({"rate": np.asarray(-1)}, "rate must be above 0, not -1"),
        ({"rate": jnp.float32(-1)}, "rate must be above 0, not -1.0"),
        ({"rate": np.asarray([0.1, 0.2])}, "rate must be a number, not array([0.1, 0.2])"),
        ({"rate": "fast"}, "rate must be a number, not 'fast'"),
        ({"rate": True}, "rate must be a number, not True"),
        ({"rate": 1j}, "rate must be a number, not 1j"),
        ({"share": 1.01}, "share must be in [0, 1], not 1.01"),
        ({"clip": -1e-9}, "clip must be 0 (off) or above, not -1e-09"),
        ({"clip": math.inf}, "clip must be a finite number, not inf"),
        ({"beta": math.nan}, "beta must be a number, which may be 0, negative or infinite, not nan"),
        ({"plain": -math.inf}, "plain must be a finite number, not -inf"),
        ({"maybe": math.inf}, "maybe must be a finite number, not inf"),
        ({"batch": 0}, "batch must be at least 1, not 0"),
        ({"batch": 2**31}, "batch must be at most 2147483647, not 2147483648"),
        ({"batch": 8.0}, "batch must be a whole number, not 8.0"),
        ({"batch": False}, "batch must be a whole number, not False"),
        ({"pairs": 3}, "pairs must be even and above 0, not 3"),
        ({"offset": -(2**31) - 5}, "offset must be at most 2147483647"),
        ({"hidden": ()}, "hidden must be one or more widths, each at least 1, not ()"),
        ({"hidden": (8, 0)}, "hidden must be one or more widths, each at least 1, not (8, 0)"),
        ({"hidden": 8}, "hidden must be one or more widths, each at least 1, not 8"),
        ({"hidden": "88"}, "hidden must be one or more widths, each at least 1, not '88'"),
        ({"hidden": (8.5,)}, "hidden must be one or more widths, each at least 1, not (8.5,)"),
        ({"extra": (-1,)}, "extra must be widths, each at least 1, not (-1,)"),
        ({"kind": "sgd"}, "kind must be adam or rmsprop, not sgd"),
        ({"flag": 1}, "flag must be True or False, not 1"),
    ],
)
@pytest.mark.parametrize("kind", [Base, Derived])
def test_what_is_refused(bad_input, kind, fields, says):
    with bad_input(says):
        kind(**fields)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"rate": np.float32(0.5)}, {"rate": 0.5}),
        ({"rate": np.int64(2)}, {"rate": 2.0}),
        ({"rate": 1}, {"rate": 1.0}),
        ({"batch": np.int64(7)}, {"batch": 7}),
        ({"batch": 2**31 - 1}, {"batch": 2**31 - 1}),
        ({"batch": np.asarray(7)}, {"batch": 7}),
        ({"batch": jnp.int32(7)}, {"batch": 7}),
        ({"rate": jnp.float32(0.5)}, {"rate": 0.5}),
        ({"rate": 3e38}, {"rate": 3e38}),
        ({"hidden": jnp.asarray([8, 4])}, {"hidden": (8, 4)}),
        ({"hidden": [8, np.int32(4)]}, {"hidden": (8, 4)}),
        ({"hidden": np.asarray([8, 4])}, {"hidden": (8, 4)}),
        ({"beta": -math.inf}, {"beta": -math.inf}),
        ({"flag": np.bool_(True)}, {"flag": True}),
        ({"maybe": None}, {"maybe": None}),
    ],
)
def test_what_is_taken_and_as_what(given, kept):
    made = Base(**given)
    for name, value in kept.items():
        found = getattr(made, name)
        assert (found, type(found)) == (value, type(value))
    assert made == Base(**kept)


def test_a_traced_number_is_left_alone():
    rates = jnp.asarray([0.1, 0.2])
    assert jax.vmap(lambda rate: Base(rate=rate).rate * 2)(rates).tolist() == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize("algorithm_id", list(baselines.ALGORITHMS))
def test_no_algorithm_takes_numbers_that_no_device_can_hold(bad_input, algorithm_id):
    """Of every algorithm every number: infinite, not a number, beyond 32 bits."""
    made = baselines.make(algorithm_id)
    for name, leaf in leaves(made).items():
        wrong = {int: [2**31, -(2**40)], float: [math.nan]}.get(type(leaf.value), [])
        if not name.startswith("beta") or name == "beta_growth":
            wrong = [*wrong, math.inf] if isinstance(leaf.value, float) else wrong
        for bad in wrong:
            with bad_input(f"{name} must be"):
                replaced(made, **{name: bad})


# Settings within settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wheel(Settings):
    """What it rolls on.

    Attributes:
        spokes: how many
            in each wheel.
        size: in inches.
    """

    spokes: Count = 32
    size: Annotated[float, above(0)] = 28.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tandem:
    """Of somebody else, without the base class.

    Attributes:
        wheel: both.
        seats: to sit on.
    """

    wheel: Wheel = Wheel()
    seats: int = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallWheel(Wheel):
    """As `Wheel`.

    Attributes:
        tube: whether it has one.
    """

    spokes: int = 20
    tube: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Brakes(Settings):
    """What stops it.

    Attributes:
        brakes: of which kind.
        force: of the hand.
    """

    brakes: Literal["rim", "disc"] = "rim"
    force: Probability = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fleet(Settings):
    """Three levels deep.

    Attributes:
        count: of bicycles.
        bicycle: each of them.
        brakes: a part that has a setting of its own name.
        colours: undescribed elsewhere.
    """

    count: Count = 3
    bicycle: Tandem = Tandem()
    brakes: Brakes = Brakes()
    colours: tuple[str, ...] = ("red",)


FLEET = Fleet(bicycle=Tandem(wheel=SmallWheel(size=20)))


def test_leaves_are_all_settings_in_their_order():
    values = {name: leaf.value for name, leaf in leaves(FLEET).items()}
    assert list(values.items()) == [
        ("count", 3),
        ("spokes", 20),
        ("size", 20.0),
        ("tube", True),
        ("seats", 2),
        ("brakes", "rim"),
        ("force", 0.5),
        ("colours", ("red",)),
    ]


def test_leaves_have_the_ranges_and_the_words_of_their_classes():
    found = leaves(FLEET)
    # A subclass that has another default only keeps the range.
    assert (found["spokes"].hint, found["seats"].hint, found["count"].hint) == (Count, int, Count)
    assert found["size"].hint is get_type_hints(Wheel, include_extras=True)["size"]
    assert found["spokes"].about == "how many in each wheel."  # of the class that it builds on, in one line
    assert found["tube"].about == "whether it has one."
    assert found["brakes"].about == "of which kind."


def test_what_is_no_dataclass_has_no_leaves():
    """An algorithm needs no settings."""
    assert leaves(object()) == {}
    plain = object()
    assert replaced(plain) is plain
    with pytest.raises(KeyError, match="count"):
        replaced(plain, count=1)


def test_replaced_changes_what_it_is_given_wherever_it_is():
    changed = replaced(FLEET, spokes=24, seats=3, count=5, force=1)
    wheel = SmallWheel(spokes=24, size=20)
    assert changed == Fleet(count=5, bicycle=Tandem(wheel=wheel, seats=3), brakes=Brakes(force=1.0))
    assert type(changed.bicycle.wheel) is SmallWheel
    assert leaves(FLEET)["spokes"].value == 20  # the original is as it was
    assert replaced(FLEET, tube=True) == FLEET
    assert replaced(FLEET) is FLEET


def test_replaced_may_change_a_whole_part():
    assert replaced(FLEET, bicycle=Tandem()) == Fleet()
    assert replaced(FLEET, bicycle=Tandem(seats=1), count=1) == Fleet(count=1, bicycle=Tandem(seats=1))
    # A setting that has the name of the part that it is in.
    assert replaced(FLEET, brakes="disc").brakes == Brakes(brakes="disc")
    assert replaced(FLEET, brakes=Brakes(force=0)).brakes == Brakes(force=0)


def test_replaced_refuses_what_cannot_be(bad_input):
    with bad_input("spokes must be at least 1, not 0"):
        replaced(FLEET, spokes=0)
    with bad_input("brakes must be rim or disc, not drum"):
        replaced(FLEET, brakes="drum")
    for name in ("wheels", "bell"):
        with pytest.raises(KeyError, match=name):
            replaced(FLEET, count=5, **{name: 1})


def test_replaced_changes_settings_of_a_part_that_it_replaces():
    changed = replaced(FLEET, brakes=Brakes(brakes="disc"), force=0.1, bicycle=Tandem(), spokes=24)
    assert changed == Fleet(brakes=Brakes(brakes="disc", force=0.1), bicycle=Tandem(wheel=Wheel(spokes=24)))
    with pytest.raises(KeyError, match="wheel"):  # nested deeper
        replaced(FLEET, wheel=Wheel())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Settings):
    """Two parts that share a setting.

    Attributes:
        speed: of both.
        front: first part.
        back: second part.
    """

    speed: float = 1.0
    front: Tandem = Tandem()
    back: Brakes | Wheel = Wheel()


def test_a_setting_of_two_parts_is_no_flag(bad_input):
    says = "Train has a setting 'spokes' in front (Tandem) and in back (Wheel), and a flag can set only one"
    for ask in (leaves, lambda made: flags_class("Flags", made), lambda made: replaced(made, spokes=24)):
        with bad_input(says):
            ask(Train())
    assert list(leaves(Train(back=Brakes()))) == ["speed", "spokes", "size", "seats", "brakes", "force"]


def test_parts_that_share_a_setting_are_replaced_as_a_whole():
    train = Train(front=Tandem(wheel=Wheel(spokes=24)))
    assert replaced(Train(), front=Tandem(wheel=Wheel(spokes=24))) == train
    assert replaced(train, speed=2, seats=3) == Train(speed=2, front=Tandem(wheel=Wheel(spokes=24), seats=3))
    assert replaced(train, back=Brakes(), spokes=12).front.wheel == Wheel(spokes=12)


def test_a_setting_of_the_whole_and_of_a_part_is_no_flag(bad_input):
    @dataclasses.dataclass(frozen=True)
    class Shop(Settings):
        seats: int = 5
        bicycle: Tandem = Tandem()

    with bad_input("Shop has a setting 'seats' in itself and in bicycle (Tandem)"):
        leaves(Shop())


def test_replaced_takes_traced_numbers():
    sizes = jnp.asarray([16.0, 20])
    doubled = jax.vmap(lambda size: 2 * replaced(FLEET, size=size).bicycle.wheel.size)(sizes)
    assert doubled.tolist() == [32, 40]


def test_flags_are_all_settings_side_by_side():
    kind = flags_class("Flags", FLEET)
    flags = kind()
    assert vars(flags) == {name: leaf.value for name, leaf in leaves(FLEET).items()}
    assert {field.name: field.type for field in dataclasses.fields(kind)} == {
        name: leaf.hint for name, leaf in leaves(FLEET).items()
    }
    help_texts = {each.arg_name: each.description for each in docstring_parser.parse(kind.__doc__).params}
    assert help_texts == {name: leaf.about for name, leaf in leaves(FLEET).items()}
    assert kind.__name__ == "Flags"
    assert replaced(FLEET, **vars(flags)) == FLEET
    assert replaced(FLEET, **vars(kind(spokes=24))) == replaced(FLEET, spokes=24)
    with pytest.raises(dataclasses.FrozenInstanceError):
        flags.spokes = 5


@pytest.mark.parametrize("algorithm_id", list(baselines.ALGORITHMS))
def test_the_flags_of_every_algorithm_make_it_again(algorithm_id):
    for family in ("matrix", "stag-hunt"):
        made = baselines.make(algorithm_id, family)
        flags = flags_class("Algorithm", made)()
        assert replaced(baselines.make(algorithm_id), **vars(flags)) == made


def experiment(**fields):
    plain = {"algorithm": baselines.make("vdn"), "environment": matrix_game(QTRAN_PAYOFF), "seeds": (0,)}
    return Experiment(**{**plain, "env_steps": 100, **fields})


@pytest.mark.parametrize("seeds", [range(3), [0, 1, 2], np.arange(3), jnp.arange(3), (np.int64(0), 1, 2)])
def test_seeds_may_be_anything_that_lists_whole_numbers(seeds):
    kept = experiment(seeds=seeds, env_steps=np.int64(100))
    assert (kept.seeds, kept.env_steps) == ((0, 1, 2), 100)
    assert all(type(number) is int for number in (*kept.seeds, kept.env_steps))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"seeds": (20261125120000,)}, "seeds must be in [0, 4294967295], not (20261125120000,)"),
        ({"seeds": range(2**60, 2**60 + 1)}, "seeds must be in [0, 4294967295]"),
        ({"seeds": range(10**9)}, "seeds must have at most 16777216 entries, not 1000000000"),
        ({"seeds": range(2**70)}, "seeds must have at most 16777216 entries, not 1180591620717411303424"),
        ({"seeds": np.asarray(3)}, "seeds must be in [0, 4294967295], not array(3)"),
        ({"seeds": b"12"}, "seeds must be in [0, 4294967295], not b'12'"),
        ({"seeds": np.asarray([[0, 1]])}, "seeds must be in [0, 4294967295], not (array([0, 1]),)"),
        ({"seeds": (0.5,)}, "seeds must be in [0, 4294967295], not (0.5,)"),
        ({"seeds": 3}, "seeds must be in [0, 4294967295], not 3"),
        ({"root_key": 2**40}, "root_key must be in [0, 4294967295], not 1099511627776"),
        ({"root_key": -1}, "root_key must be in [0, 4294967295], not -1"),
        (
            {"env_steps": 2**31},
            "env_steps must be at most 2147483645 for each environment, not 2147483648 for 1",
        ),
        ({"env_steps": 10**30, "num_envs": 2**30}, "env_steps must be at most 9007199254740992, not 1"),
        ({"num_envs": 2**33}, "num_envs must be at most 2147483647"),
        ({"env_steps": "many"}, "env_steps must be a whole number, not 'many'"),
    ],
)
def test_numbers_beyond_32_bits(bad_input, fields, says):
    with bad_input(says):
        experiment(**fields)


def test_the_largest_numbers_that_can_be():
    largest = experiment(seeds=(2**32 - 1, 2**31), root_key=2**32 - 1, env_steps=2**31 * 4000, num_envs=4096)
    assert largest.iterations == 2_097_152_000


@pytest.mark.parametrize("module", [settings, ranges])
def test_the_example_in_the_docstring(module):
    found = doctest.testmod(module, extraglobs={"dataclasses": dataclasses, "Annotated": Annotated})
    assert found.attempted == 2 and not found.failed
