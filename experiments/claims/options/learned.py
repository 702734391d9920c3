"""Learned tables beside exact ones, for every figure that trains soft options."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import rel_entr

from baselines.soft_options import learned_tables
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import Result
from jaxmarl_fac.soft import options


class Exact(NamedTuple):
    """What a learner should find: the game, and the exact solution from each agent's side."""

    game: options.OptionGame
    solutions: tuple[options.SoftOptions, ...]


class Errors(NamedTuple):
    """Of learned tables, over all agents, choices and states in which an episode goes on; each `()`."""

    values: np.ndarray  # the largest distance of a value
    divergence: np.ndarray  # the largest KL of a learned policy from the exact one, in nats


def exact_solution(algorithm: Any, env: Any) -> Exact:
    """The solution of one game, an `OptionMDP`, with the settings of an `OptionsAC`, in float64."""
    with jax.enable_x64(True):
        game = options.option_game(
            env.model(),
            [np.asarray(prior, float) for prior in env.action_priors],
            termination_prior=float(algorithm.termination_prior),
            beta=float(algorithm.beta),
            gamma=float(algorithm.gamma),
        )
        sides = (game.seen_by(agent) for agent in range(game.num_agents))
        return Exact(game, tuple(options.solve(side, algorithm.model) for side in sides))


def tables_of(experiment: Experiment, result: Result) -> list[tuple[options.SoftOptions, ...]]:
    """What each lane has learned in the end, from each agent's side, in float64."""
    algorithm: Any = experiment.algorithm
    env: Any = experiment.environment

    def of_lane(env: Any, params: Any) -> options.SoftOptions:
        return learned_tables(algorithm, env, params)

    params = result.learner.params
    if experiment.games:
        lanes = jax.tree.map(lambda leaf: np.repeat(leaf, len(experiment.seeds), axis=0), env)
        tables = jax.jit(jax.vmap(of_lane))(lanes, params)
    else:
        tables = jax.jit(jax.vmap(lambda params: of_lane(env, params)))(params)
    tables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tables)  # (lanes, n, S, ...)
    lanes_count, agents = tables.q.shape[:2]
    return [
        tuple(jax.tree.map(lambda leaf, at=(lane, agent): leaf[at], tables) for agent in range(agents))
        for lane in range(lanes_count)
    ]


def game_of_lane(experiment: Experiment, lane: int) -> Any:
    """The environment in which a lane learns."""
    if not experiment.games:
        return experiment.environment
    return jax.tree.map(lambda leaf: leaf[lane // len(experiment.seeds)], experiment.environment)


def errors_of(learned: tuple[options.SoftOptions, ...], exact: Exact) -> Errors:
    """How far a lane's tables are from the exact ones."""
    alive = ~np.asarray(exact.game.terminal)
    distances, divergences = [], []
    for ours, theirs in zip(learned, exact.solutions, strict=True):
        for name, table in theirs.values.items():
            distances.append(np.abs(ours.values[name] - np.asarray(table))[alive].max())
        for name, policy in theirs.policies.items():
            kl = np.asarray(rel_entr(ours.policies[name], np.asarray(policy))).sum(-1)
            divergences.append(kl[alive].max())
    return Errors(np.max(distances), np.max(divergences))


def return_of(learned: tuple[options.SoftOptions, ...], env: Any, exact: Exact) -> float:
    """The exact expected return of an episode of `env` that is played by these policies."""
    with jax.enable_x64(True):
        start = jnp.asarray(np.asarray(env.start, float))
        return float(options.expected_return(exact.game, learned, start, int(env.time_limit)))
