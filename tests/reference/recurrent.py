"""Recurrent agents and their losses along one episode, in plain NumPy loops from the formulas.

Parameters as in `tests.reference.q_learners`.
"""

from typing import Any, NamedTuple

import numpy as np

from tests.reference.q_learners import (
    Params,
    QTran,
    alt_losses,
    base_losses,
    best_actions,
    linear,
    mlp,
    own_part,
)


class Episode(NamedTuple):
    """An episode of T steps, and T + 1 observations. Nothing is padded."""

    views: np.ndarray  # (T + 1, n, O)
    states: np.ndarray  # (T + 1, S)
    masks: np.ndarray  # (T + 1, n, A)
    actions: np.ndarray  # (T, n)
    rewards: np.ndarray  # (T,)
    discounts: np.ndarray  # (T,)

    def observation(self, t: int) -> tuple:
        return self.views[t], self.states[t], self.masks[t]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gru(cell: Params, h: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The new hidden state (Cho et al., 2014, in cuDNN's form)."""
    reset = sigmoid(linear(cell["ir"], x) + linear(cell["hr"], h))
    update = sigmoid(linear(cell["iz"], x) + linear(cell["hz"], h))
    new = np.tanh(linear(cell["in"], x) + reset * linear(cell["hn"], h))
    return (1 - update) * new + update * h


def unroll(
    agent: Params, episode: Episode, ids: bool = True, last_actions: bool = True, memory: Any = None
) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Utilities `(A,)` and hidden state `(H,)` for every observation and agent.

    Whether agents share parameters is read from the parameters' shapes. `memory` has their hidden states
    `(n, H)` and last actions `(n,)` before the first observation, if that does not begin an episode.
    """
    steps, n = len(episode.actions), episode.views.shape[1]
    count, width = episode.masks.shape[2], agent["cell"]["hr"]["kernel"].shape[-1]
    shared = agent["head"]["kernel"].ndim == 2
    each = [agent if shared else own_part(agent, i) for i in range(n)]
    found = []
    hidden, before = ([np.zeros(width)] * n, [-1] * n) if memory is None else map(list, memory)
    for t in range(steps + 1):
        for i in range(n):
            x = [episode.views[t, i]]
            if last_actions:
                last = episode.actions[t - 1, i] if t > 0 else before[i]
                x.append(np.eye(count)[last] if last >= 0 else np.zeros(count))
            if ids:
                x.append(np.eye(n)[i])
            encoded = mlp(each[i]["encoder"], np.concatenate(x), last_is_linear=False)
            hidden[i] = gru(each[i]["cell"], hidden[i], encoded)
        found.append([(linear(own["head"], h), h) for own, h in zip(each, hidden, strict=True)])
    return found


def utilities(agent: Params, episode: Episode) -> np.ndarray:
    """`(T + 1, n, A)`."""
    return np.asarray([[q for q, _ in each] for each in unroll(agent, episode)])


def lambda_returns(
    rewards: np.ndarray, discounts: np.ndarray, values: np.ndarray, gamma: float, lambda_: float
) -> np.ndarray:
    """From their definition, as mixtures of n-step returns; `values[t]` is of what follows step t."""
    count = len(rewards)

    def n_step(t: int, n: int) -> float:
        total, factor = 0.0, 1.0
        for k in range(t, t + n):
            total += factor * rewards[k]
            factor *= gamma * discounts[k]
        return total + factor * values[t + n - 1]

    def mixture(t: int) -> float:
        longest = count - t
        short = sum((1 - lambda_) * lambda_ ** (n - 1) * n_step(t, n) for n in range(1, longest))
        return short + lambda_ ** (longest - 1) * n_step(t, longest)

    return np.asarray([mixture(t) for t in range(count)])


def mixed_losses(
    mix: Any, online: Params, target: Params, episode: Episode, gamma: float, lambda_: float, double: bool
) -> np.ndarray:
    """The squared TD error of every step."""
    q, target_q = utilities(online["agent"], episode), utilities(target["agent"], episode)
    values, q_tot = [], []
    for t, actions in enumerate(episode.actions):
        best = best_actions((q if double else target_q)[t + 1], episode.masks[t + 1])
        values.append(mix(target, [target_q[t + 1, i, u] for i, u in enumerate(best)], episode.states[t + 1]))
        q_tot.append(mix(online, [q[t, i, u] for i, u in enumerate(actions)], episode.states[t]))
    return (q_tot - lambda_returns(episode.rewards, episode.discounts, values, gamma, lambda_)) ** 2


def iql_losses(
    online: Params, target: Params, episode: Episode, gamma: float, lambda_: float, double: bool
) -> np.ndarray:
    """The mean over agents of every step's squared TD errors: each agent is a team of one."""

    def agent_alone(i: int) -> np.ndarray:
        q, target_q = utilities(online["agent"], episode)[:, i], utilities(target["agent"], episode)[:, i]
        values, own = [], []
        for t, actions in enumerate(episode.actions):
            best = best_actions((q if double else target_q)[t + 1][None], episode.masks[t + 1, i][None])[0]
            values.append(target_q[t + 1, best])
            own.append(q[t, actions[i]])
        return (own - lambda_returns(episode.rewards, episode.discounts, values, gamma, lambda_)) ** 2

    return np.mean([agent_alone(i) for i in range(episode.views.shape[1])], axis=0)


def qtran_losses(
    online: Params,
    target: Params,
    episode: Episode,
    gamma: float,
    lambda_: float,
    double: bool,
    state_value: bool = False,
    alt: bool = False,
) -> dict[str, np.ndarray]:
    """QTRAN's three losses of every step, with sums of features, bootstrapping from Q_jt."""

    def estimators(params: Params) -> list[QTran]:
        lower = unroll(params["agent"], episode)
        return [
            QTran(params, episode.observation(t), "sum", state_value, lower[t]) for t in range(len(lower))
        ]

    def returns(values: list[float]) -> np.ndarray:
        return lambda_returns(episode.rewards, episode.discounts, values, gamma, lambda_)

    now, then = estimators(online), estimators(target)
    best = [(now if double else then)[t].best() for t in range(len(then))]
    steps = range(1, len(then))
    if alt:
        agents = range(then[0].n)
        y = np.stack(
            [returns([then[t].counterfactual(i, best[t])[best[t][i]] for t in steps]) for i in agents], axis=1
        )
        each = [alt_losses(now[t], list(u), y[t], "signed") for t, u in enumerate(episode.actions)]
    else:
        y = returns([then[t].q_jt(best[t]) for t in steps])
        each = [base_losses(now[t], list(u), y[t]) for t, u in enumerate(episode.actions)]
    return {name: np.asarray([losses[name] for losses in each]) for name in each[0]}
