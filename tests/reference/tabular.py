"""Tabular learners in plain NumPy loops, from their papers; `table[agent][observation][action]`."""

import numpy as np


def target(table, agent, step, gamma):
    """`r + gamma max q(o', .)` over the actions that the agent has; `r` at an end."""
    best = max(table[agent, step["next"][agent], : step["counts"][agent]])
    return step["reward"] + gamma * step["discount"] * best


def independent(table, step, rate, gamma, ratio=1.0):
    """IQL; with `ratio` below 1 hysteretic, with 0 distributed Q-learning."""
    before = table.copy()
    for agent, (o, u) in enumerate(zip(step["observed"], step["actions"], strict=True)):
        error = target(before, agent, step, gamma) - before[agent, o, u]
        table[agent, o, u] += rate * (1 if error > 0 else ratio) * error


def logical(q_b, q_u, step, rate, gamma, alpha, second_if):
    """LTQL. All conditions on what the others did are looked up before anyone learns."""
    observed, actions, counts = step["observed"], step["actions"], step["counts"]
    best = [
        q_b[k, observed[k], actions[k]] == max(q_b[k, observed[k], : counts[k]]) for k in range(len(observed))
    ]
    targets = [target(q_u, k, step, gamma) for k in range(len(observed))]
    for k, (o, u) in enumerate(zip(observed, actions, strict=True)):
        useful = all(best[n] for n in range(len(observed)) if n != k)
        if useful:
            q_b[k, o, u] += rate * (targets[k] - q_b[k, o, u])
            q_u[k, o, u] += rate * (targets[k] - q_u[k, o, u])
        if (second_if == "if" or not useful) and targets[k] > q_b[k, o, u]:
            q_b[k, o, u] += rate * alpha * (targets[k] - q_b[k, o, u])


def draw_steps(seed, count, observations, counts):
    """Random transitions; rewards are multiples of 1/8, so that ties are exact."""
    rng = np.random.default_rng(seed)
    agents = len(counts)
    for _ in range(count):
        yield {
            "observed": rng.integers(0, observations, agents),
            "actions": rng.integers(0, counts),
            "reward": rng.integers(-16, 17) / 8,
            "discount": float(rng.random() < 0.8),
            "next": rng.integers(0, observations, agents),
            "counts": counts,
        }
