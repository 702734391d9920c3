"""The losses of Weighted QMIX (arXiv 2006.10800) and ReMIX (theorem 1) in plain NumPy loops.

Parameters, observations and transitions as in `tests.reference.q_learners`.
"""

from typing import Any

import numpy as np

from tests.reference.q_learners import Params, best_actions, linear, mlp, qmix_mix, relu, utilities


def central_value(params: Params, observation: tuple, actions: Any) -> float:
    """The unrestricted joint value of a joint action."""
    q = utilities({"agent": params["central_agent"]}, observation)
    mixer = params["central_mixer"]
    both = np.concatenate([observation[1], [q[i][u] for i, u in enumerate(actions)]])
    value = linear(mixer["value"]["Dense_1"], relu(linear(mixer["value"]["Dense_0"], observation[1])))
    return float(mlp(mixer["joint"], both, last_is_linear=True)[0] + value[0])


def q_tot_of(params: Params, observation: tuple, actions: Any, raised: int = -1, by: float = 0.0) -> float:
    """Q_tot, with the utility of agent `raised` changed."""
    q = utilities(params, observation)
    chosen = [q[i][u] + by * (i == raised) for i, u in enumerate(actions)]
    return qmix_mix(params, chosen, observation[1])


def raw_weight(kind: str, alpha: float, online: Params, target: Params, step: tuple, y: float) -> float:
    """The weight of one step; for "remix" before it is normalised."""
    observation, actions = step[:2]
    q = utilities(online, observation)
    q_tot = q_tot_of(online, observation, actions)
    if kind == "ow-qmix":
        return 1.0 if q_tot < y else alpha
    if kind == "cw-qmix":
        greedy = best_actions(q, observation[2])
        better = y > central_value(target, observation, greedy)
        return 1.0 if list(actions) == greedy or better else alpha
    if q_tot >= y:
        return 0.0
    bracket, step_size = -1.0, 1e-4
    for i, u in enumerate(actions):
        available = np.flatnonzero(observation[2][i])
        policy = np.exp(q[i][u]) / np.exp(q[i][available]).sum()
        up, down = (q_tot_of(online, observation, actions, i, sign * step_size) for sign in (1, -1))
        bracket += (1 - policy) / np.clip((up - down) / (2 * step_size), 1e-3, 1e3)
    gap = np.clip(central_value(target, observation, actions) - q_tot, -10, 10)
    return float(max(0.0, (y - q_tot) * np.exp(gap) * bracket))


def batch_loss(
    kind: str,
    alpha: float,
    online: Params,
    target: Params,
    steps: list[tuple],
    gamma: float,
    central_factor: float = 0.5,
    double_q: bool = True,
) -> dict[str, Any]:
    """The mean loss of some transitions and their weights; `alpha` is ReMIX's least weight."""
    raws, errors, others = [], [], []
    for step in steps:
        observation, actions, reward, discount, following = step
        selector = online if double_q else target
        next_best = best_actions(utilities(selector, following), following[2])
        y = reward + gamma * discount * central_value(target, following, next_best)
        raws.append(raw_weight(kind, alpha, online, target, step, y))
        errors.append((q_tot_of(online, observation, actions) - y) ** 2)
        others.append(central_factor * (central_value(online, observation, actions) - y) ** 2)
    weights = np.asarray(raws)
    if kind == "remix":
        low, high = weights.min(), weights.max()
        weights = alpha + (1 - alpha) * (weights - low) / (high - low)
    return {"loss": float(np.mean(weights * errors + others)), "weights": weights}
