"""Runs that earlier code saved, by the classes that algorithms then had, still load."""

import dataclasses

import pytest

from baselines import probes
from baselines.registry import OLD_CLASSES, lookup
from baselines.two_player import Match, SelfPlay
from jaxmarl_fac.saved import find, from_json, to_json
from jaxmarl_fac.settings import leaves, replaced


def as_earlier_code_saved(algorithm, name):
    """Flat, under the path of a class; a rule as a part of its own."""
    if isinstance(algorithm, SelfPlay):
        rule = to_json(algorithm.rule)
        fields = {"rule": rule | {"type": f"baselines.opponent_modelling:{rule['type']}"}}
        fields["learn_from"] = algorithm.learn_from
    else:
        fields = {each: to_json(leaf.value) for each, leaf in leaves(algorithm).items()}
    return {"type": f"baselines.somewhere:{name}", **fields}


@pytest.mark.parametrize(("name", "algorithm_id"), OLD_CLASSES.items())
def test_an_algorithm_of_an_old_run_is_the_same_value(name, algorithm_id):
    default = lookup(algorithm_id)
    changed = replaced(default, gamma=0.5)
    for algorithm in (default, changed):
        assert from_json(as_earlier_code_saved(algorithm, name)) == algorithm


def test_a_pair_of_rules_and_probes_of_an_old_run():
    rule = to_json(lookup("pr2-q").rule)
    old = rule | {"type": "baselines.opponent_modelling:PR2Rule"}
    match = from_json({"type": "baselines.two_player:Match", "row": old, "column": old, "learn_from": "all"})
    assert isinstance(match, Match)
    assert match.row == lookup("pr2-q").rule
    assert find("jaxmarl_fac.inspection:joint_tables") is probes.joint_tables
    assert find("baselines.actor_critic:greedy_actions_of") is probes.greedy_actions_of


@pytest.mark.parametrize("name", ["NoSuchThing", "baselines.qmix:NoSuchThing", "os:system"])
def test_names_of_nothing_are_refused(name, bad_input):
    with bad_input("is not a part of this suite"):
        find(name)


def test_an_outside_name_needs_its_module_to_be_named(bad_input):
    with bad_input("name its module dataclasses to load it"):
        find("dataclasses:field", modules=["json"])
    assert find("dataclasses:field", modules=["dataclasses"]) is dataclasses.field
