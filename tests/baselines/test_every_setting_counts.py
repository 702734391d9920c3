"""No algorithm has a setting that changes nothing, and float settings may be traced."""

import contextlib
import dataclasses
import functools
import re
import types
import typing

import jax
import numpy as np
import pytest
from jax.interpreters import partial_eval

import baselines
import envs
from baselines.factored import VDN, Factored
from baselines.q_learning import QLearning
from baselines.registry import ALGORITHMS, own_settings
from envs.errors import BadInputError
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.memory.packing import plain_step
from jaxmarl_fac.program import step_example
from jaxmarl_fac.settings import Settings, leaves, replaced
from tests.helpers import but_slow, clock_at, first_observation

#: With a reward per agent, with a team's, with actions that are numbers, with options, and with public
#: observations.
GAMES = (
    envs.make("matrix-pr2", stages=2),
    envs.make("matrix-ltql", stages=2),
    envs.make("differential"),
    envs.make("option-mdp-random", agents=1),
    envs.make("option-mdp-random"),
    envs.make("private-cards"),
)
#: Small, and with exploration that leaves the agents something to choose.
SETTINGS = {"hidden": (3,), "batch_size": 4, "epsilon_start": 0.5, "epsilon_end": 0.25}
#: Settings that belong to another one: what that must be for them to count.
CONDITIONS = {
    "temperature": {"acting": "softmax", "model": "inferred"},
    **{f"temperature_{name}": {"boltzmann_share": 0.5} for name in ("start", "end", "steps")},
    "poisson_mean": {"mixture": True},
    "rmsprop_decay": {"optimiser": "rmsprop"},
    "rmsprop_eps": {"optimiser": "rmsprop"},
    "td_lambda": {"consumes": "episodes"},
    "recurrent": {"consumes": "episodes", "minibatches": 1},
    "last_actions": {"consumes": "episodes", "recurrent": True, "minibatches": 1},
    "consumes": {
        "recent_fraction": 0.0,
        "td_lambda": 0.0,
        "latent_policy": "uniform",
        "recurrent_discriminator": False,
    },
    "mi_reward": {"recurrent_discriminator": False},
    "kl_target": {"trust_region": "penalty"},
    "kl_coefficient": {"trust_region": "penalty"},
    "attention_embed": {"attention_heads": 2},
    "attention_penalty": {"attention_heads": 2},
    "target_rate": {"target_period": 0, "target_rate": 0.5},
}
#: Settings that must stay as they are: the class is shared with learners that read them.
REFUSED = {("soft-q", "other_prior")}
#: Numbers that must be known before anything runs: 0 leaves something out, or they say how large a part is.
SWITCHES = {
    *("max_grad_norm", "weight_std", "q_bound"),
    *("rate_half_life", "initial_spread", "recent_fraction", "mi_reward"),
}
#: The actor-critic has another form where they are 0; in tables they are numbers like others.
SWITCHES_OF = {"balancing-ac": {"beta_own", "beta_other"}}
FLOATS = (float, float | None)
#: Whole numbers that cannot grow here: two environments have two minibatches at most, and episodes two steps.
OTHER_COUNTS = {"minibatches": 2, "backup_steps": 1}
#: Iterations of the run that memories are made for.
ITERATIONS = 10**6


def plain_hint(leaf):
    """Without the range, and whole numbers that may be None without that."""
    hint = leaf.hint
    if typing.get_origin(hint) in (types.UnionType, typing.Union) and hint not in FLOATS:
        hint = next(each for each in typing.get_args(hint) if each is not type(None))
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def another_value(name, leaf):
    """A value that the setting can have besides the one that it has."""
    hint, value = plain_hint(leaf), leaf.value
    if typing.get_origin(hint) is typing.Literal:
        return next(choice for choice in typing.get_args(hint) if choice != value)
    if hint is bool:
        return not value
    if hint is int:
        return OTHER_COUNTS.get(name, value + 2 if value else 7)  # even ones stay even
    if typing.get_origin(hint) is tuple:
        return (*value, 5) if typing.get_args(hint)[0] is int else (0.25, 0.75)
    return value + 1 if name == "beta_growth" else 0.75  # which is at least 1


class Computed:
    """What an algorithm computes in a game, as text without what nothing depends on.

    Each part is traced when it is first read.
    """

    #: The longest last.
    PARTS = ("periods", "init", "act", "act_greedily", "memory", "update")

    def __init__(self, algorithm, env):
        self.env, self.learner = env, algorithm.bind(GameSpec.of(env), 2)
        self.observation = jax.eval_shape(lambda: first_observation(env))
        self.clock, self.key = jax.eval_shape(clock_at), jax.eval_shape(jax.random.key, 0)

    @functools.cached_property
    def periods(self):
        return str(self.learner.periods)

    @functools.cached_property
    def init(self):
        return self._init[0]

    @functools.cached_property
    def act(self):
        return self._act[0]

    @functools.cached_property
    def act_greedily(self):
        def begun(params, observation, key):
            carry = self.learner.begin(params, observation, key)
            return self.learner.act_greedily(params, carry, observation, key)

        return traced(begun, self._init[1].params, self.observation, self.key)[0]

    @functools.cached_property
    def memory(self):
        return self._memory[0]

    @functools.cached_property
    def update(self):
        state, batch = self._init[1], self._memory[1][1]
        return traced(self.learner.update, state, batch, self.clock, self.key)[0]

    @functools.cached_property
    def _init(self):
        return traced(self.learner.init, self.key)

    @functools.cached_property
    def _act(self):
        def begun(params, observation, clock, key):
            carry = self.learner.begin(params, observation, key)
            return carry, self.learner.act(params, carry, observation, clock, key)

        return traced(begun, self._init[1].params, self.observation, self.clock, self.key)

    @functools.cached_property
    def _memory(self):
        carry, (actions, _, extras) = self._act[1]
        step = plain_step(self.env)._replace(carry=carry, actions=actions, extras=extras)
        store = self.learner.memory.bind(self.env, step, 2, ITERATIONS)

        def filled_and_drawn(steps, key):
            buffer = store.add(store.init(), 0, steps)
            return buffer, store.sample(buffer, 1, key)

        steps = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), step)
        return traced(filled_and_drawn, steps, self.key)


def traced(function, *shapes):
    """A function's text, and the shapes that it returns."""
    jaxpr, returned = jax.make_jaxpr(function, return_shape=True)(*shapes)
    needed, _ = partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars))
    constants = [np.asarray(constant).tolist() for constant in jaxpr.consts]
    return re.sub(r"0x[0-9a-f]+", "", str(needed)) + str(constants), returned


def game_for(algorithm):
    """The first of the games that it can play."""
    for env in GAMES:
        with contextlib.suppress(BadInputError):
            algorithm.bind(GameSpec.of(env))
            return env
    raise AssertionError("it can play none of the games")


def differ(one, other):
    return any(getattr(one, part) != getattr(other, part) for part in Computed.PARTS)


def floats_that_count(algorithm, env, names):
    """Those of the float settings on which what is computed depends, all of them traced at once."""

    def act_and_learn(floats, key):
        learner = replaced(algorithm, **floats).bind(GameSpec.of(env), 2)
        state, observation = learner.init(key), first_observation(env)
        store = learner.memory.bind(env, step_example(env, learner, state.params), 2, ITERATIONS)
        carry = learner.begin(state.params, observation, key)
        decision = learner.act(state.params, carry, observation, clock_at(1, progress=0.5), key)
        greedy = learner.act_greedily(state.params, decision.carry, observation, key)
        batch = store.sample(store.init(), 1, key)
        return state, decision, greedy, learner.update(state, batch, clock_at(progress=0.5), key)

    floats = {name: jax.ShapeDtypeStruct((), np.float32) for name in names}
    jaxpr = jax.make_jaxpr(act_and_learn)(floats, jax.random.key(0)).jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return {name for name, counts in zip(sorted(names), used[: len(names)], strict=True) if counts}


#: One with networks and one with tables; the others are slow.
QUICK = {"vdn", "wolf-phc"}


@pytest.mark.parametrize("algorithm_id", but_slow(ALGORITHMS, QUICK))
def test_every_setting_changes_what_is_computed(bad_input, algorithm_id):
    """And every number but for switches may be traced."""
    made = baselines.make(algorithm_id, **own_settings(algorithm_id, SETTINGS))
    env, static = game_for(made), SWITCHES | SWITCHES_OF.get(algorithm_id, set())
    if isinstance(made, QLearning):  # at 0 targets are copied; the targets of actor-critics always move
        static = static | {"target_rate"}
    found, groups = leaves(made), {}
    for name in found:
        conditions = own_settings(algorithm_id, CONDITIONS.get(name, {}))
        groups.setdefault(tuple(conditions.items()), []).append(name)
    for conditions, names in groups.items():
        conditioned = replaced(made, **dict(conditions))
        floats = {name for name in names if plain_hint(found[name]) in FLOATS} - static
        assert floats_that_count(conditioned, env, floats) == floats
        plain = Computed(conditioned, env)
        assert not differ(plain, Computed(conditioned, env))  # the same settings give the same text
        for name in [name for name in names if name not in floats]:
            value = another_value(name, leaves(conditioned)[name])
            if (algorithm_id, name) in REFUSED:
                with bad_input(f"{name} must be empty"):
                    replaced(made, **{name: value})
                continue
            after = Computed(replaced(conditioned, **{name: value}), env)
            assert differ(plain, after), f"{algorithm_id} computes the same whatever {name} is"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Idle(Settings):
    nothing: float = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithIdleParts(QLearning):
    idle: Idle = Idle()


def test_a_setting_that_nothing_reads_is_found():
    made = WithIdleParts(method=Factored(mixing=VDN()))
    plain = Computed(made, GAMES[1])
    assert not differ(plain, Computed(replaced(made, nothing=0.75), GAMES[1]))
    assert floats_that_count(made, GAMES[1], {"nothing", "gamma"}) == {"gamma"}
    for settings in ({"gamma": 0.5}, {"target_period": 3}, {"replay_size": 99}, {"learning_rate": 0.75}):
        assert differ(plain, Computed(replaced(made, **settings), GAMES[1]))
