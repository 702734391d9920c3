"""No algorithm takes a setting that changes nothing: tables as traced, networks as read in the source."""

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import partial_eval

import baselines
import envs
from baselines.registry import ALGORITHMS, own_settings
from baselines.tabular import TabularLearner
from baselines.two_player import TwoPlayerLearner
from jaxmarl_fac import experiment
from jaxmarl_fac.algorithm import Transition
from jaxmarl_fac.memory import choice

TABLES = [name for name, kind in ALGORITHMS.items() if issubclass(kind, TabularLearner | TwoPlayerLearner)]
NETWORKS = [name for name in ALGORITHMS if name not in TABLES]
#: Settings that belong to another one of the same class: what that must be for them to count.
CONDITIONS = {"temperature": ("acting", "softmax"), "poisson_mean": ("mixture", True)}
#: Settings that must stay as they are: the class is shared with learners that read them.
REFUSED = {("soft-q", "other_prior")}


#: Exploration that leaves the agents something to choose.
SOME_EPSILON = {"epsilon_start": 0.5, "epsilon_end": 0.25}


def settings_of(algorithm):
    """`(whose, name)` of every setting; a pair of rules has them in its one rule."""
    if not hasattr(algorithm, "rule"):
        return [(algorithm, field.name) for field in dataclasses.fields(algorithm)]
    return [(algorithm.rule, field.name) for field in dataclasses.fields(algorithm.rule)] + [
        (algorithm, "learn_from")
    ]


def another_value(kind, name, value):
    hint = typing.get_type_hints(kind)[name]
    if typing.get_origin(hint) is typing.Literal:
        return next(choice for choice in typing.get_args(hint) if choice != value)
    changed = {bool: lambda: not value, int: lambda: value + 1, tuple: lambda: (0.25, 0.75)}
    if type(value) in changed:
        return changed[type(value)]()
    return 0.75 if name not in ("beta_growth", "temperature") else value + 1  # the one is 1 at least


def program(algorithm, env):
    """All that the algorithm computes, without what nothing depends on."""
    n = env.num_agents
    observation = jax.eval_shape(lambda: env.observe(env.reset(jax.random.key(0))[0]))
    learner = jax.eval_shape(functools.partial(algorithm.init, env), jax.random.key(0))

    def of(shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype)

    several = jax.tree.map(lambda leaf: of((2, *leaf.shape), leaf.dtype), observation)
    reward = of((2, *env.reward_spec.shape))
    batch = Transition(several, of((2, n), jnp.int32), reward, of((2,)), several)

    def everything(learner, observation, batch, number, key):
        return (
            algorithm.init(env, key),
            algorithm.act(env, learner.params, (), observation, algorithm.epsilon(number), key),
            algorithm.act_greedily(env, learner.params, (), observation),
            algorithm.update(env, learner, batch, number, key),
        )

    key = jax.eval_shape(jax.random.key, 0)
    traced = jax.make_jaxpr(everything)(learner, observation, batch, of(()), key)
    needed, _ = partial_eval.dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars))
    constants = [np.asarray(constant).tolist() for constant in traced.consts]
    return re.sub(r"0x[0-9a-f]+", "", str(needed)) + str(constants)


#: The others have the same rule with another default.
@pytest.mark.parametrize("algorithm_id", sorted({*TABLES} - {"rommeo-q-emp", "gr2-q-mixture"}))
def test_every_setting_of_tables_changes_what_is_computed(bad_input, algorithm_id):
    made = baselines.make(algorithm_id, **own_settings(algorithm_id, SOME_EPSILON))
    env = envs.make("matrix-pr2" if made.general_sum else "matrix-ltql", stages=2)
    plain = program(made, env)
    for whose, name in settings_of(made):
        value = another_value(type(whose), name, getattr(whose, name))
        if (algorithm_id, name) in REFUSED:
            with bad_input(f"{name} must be empty"):
                dataclasses.replace(whose, **{name: value})
            continue

        def with_settings(whose=whose, **settings):
            changed = dataclasses.replace(whose, **settings)
            return changed if whose is made else dataclasses.replace(made, rule=changed)

        condition = dict([CONDITIONS[name]]) if name in CONDITIONS else {}
        condition = {other: needed for other, needed in condition.items() if hasattr(whose, other)}
        before = program(with_settings(**condition), env) if condition else plain
        after = program(with_settings(**condition, **{name: value}), env)
        assert after != before, f"{algorithm_id} computes the same whatever {name} is"


@functools.cache
def names_read(function):
    """The attributes that a function's source reads, and the methods that it calls by `super()`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    above = {node.attr for node in attributes if ast.unparse(node.value) == "super()"}
    return {node.attr for node in attributes if ast.unparse(node.value) in ("self", "settings")}, above


def read_by(kind):
    """The attributes that the methods of a class read, without those that a subclass has replaced."""
    found, replaced = set(), set()
    for base in kind.__mro__:
        for name, member in vars(base).items():
            function = getattr(member, "fget", member)
            # What only checks a setting does not count.
            if not inspect.isfunction(function) or name in replaced | {"check"} or name.startswith("__"):
                continue
            read, above = names_read(function)
            found |= read
            if name not in above:
                replaced.add(name)
    return found


@pytest.mark.parametrize("algorithm_id", NETWORKS)
def test_every_setting_of_networks_is_read(algorithm_id):
    """By a method that the algorithm has, by the memory, or by the schedule."""
    read = read_by(ALGORITHMS[algorithm_id])
    for module in (choice.memory_for, experiment.Experiment.schedule.fget):
        tree = ast.parse(textwrap.dedent(inspect.getsource(module)))
        read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        read |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}  # by getattr
    unread = [f.name for f in dataclasses.fields(ALGORITHMS[algorithm_id]) if f.name not in read]
    assert unread == []


def test_a_setting_that_nothing_reads_is_found():
    class Above:
        def used(self):
            return self.one, self.two

    class Below(Above):
        def used(self):
            return self.one

    assert names_read(Above.used)[0] == {"one", "two"}
    assert (read_by(Above), read_by(Below)) == ({"one", "two"}, {"one"})
