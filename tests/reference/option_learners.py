"""One agent's losses of soft options in one step and their gradients, written out choice by choice.

Tables are NumPy arrays: `values` and `logits` by the names of choices, without an axis of states. `logits`
are added to log-priors. A gradient is given for every table.
"""

import numpy as np


def node(value, inner, prior, logits):
    """Losses of one value and one policy, and their gradients: by the value, and by the logits."""
    possible = prior > 0
    odds = np.where(possible, prior * np.exp(np.where(possible, logits, 0)), 0)
    policy = odds / odds.sum()
    ratio = np.where(possible, np.log(np.where(possible, policy / np.where(possible, prior, 1), 1)), 0)
    target = np.sum(policy * (inner - ratio))
    slope = ratio - inner
    return (
        (value - target) ** 2 / 2,
        value - target,
        np.sum(policy * (ratio - inner)) + value,
        policy * (slope - np.sum(policy * slope)),
    )


class Losses:
    """Sums of losses and gradients, each entry with its weight."""

    def __init__(self, tables, counted):
        self.tables, self.counted = tables, counted
        q, values, logits = tables
        self.losses = {}
        self.grads = (
            np.zeros_like(q),
            {name: np.zeros_like(table) for name, table in values.items()},
            {name: np.zeros_like(table) for name, table in logits.items()},
        )

    def choice(self, name, place, wanted, inner, prior):
        """One entry of a choice; all entries count, or the `wanted` one alone."""
        _, values, logits = self.tables
        weight = 1 / values[name].size if self.counted == "all" else float(place == wanted)
        value_loss, by_value, policy_loss, by_logits = node(
            values[name][place], np.asarray(inner), np.asarray(prior), logits[name][place]
        )
        for kind, loss in (("value", value_loss), ("policy", policy_loss)):
            key = f"{name}_{kind}"
            self.losses[key] = self.losses.get(key, 0) + weight * loss
        self.grads[1][name][place] += weight * by_value
        self.grads[2][name][place] += weight * by_logits

    def q(self, place, wanted, entries, target):
        """One entry of Q towards its target."""
        weight = 1 / entries if self.counted == "all" else float(place == wanted)
        error = self.tables[0][place] - target
        self.losses["q"] = self.losses.get("q", 0) + weight * error**2 / 2
        self.grads[0][place] += weight * error


def single(tables, priors, following, step, *, beta, gamma, ends, counted):
    """Thesis, equations 4.22 to 4.28.

    Args:
        tables: `(q (m, A), values, logits)`.
        priors: `[P(a | z) (m, A)]`.
        following: U(s', z), `(m,)`.
        step: actions, options, previous options, reward, discount.
        beta: the weight of rewards.
        gamma: the discount.
        ends: p, the prior probability of ending an option.
        counted: "all", or "followed".
    """
    q, values, _ = tables
    (action,), (option,), (previous,), reward, discount = step
    m, both = q.shape[0], [1 - ends, ends]
    sums = Losses(tables, counted)
    for z in range(m):
        sums.q((z, action), (option, action), m, beta * reward + gamma * discount * following[z])
        sums.choice("action", (z,), (option,), q[z], priors[0][z])
        kept = [values["action"][z], values["option"][()]]
        sums.choice("termination", (z,), (previous,), kept, both)
    sums.choice("option", (), (), values["action"], np.full(m, 1 / m))
    return sums.losses, sums.grads


def delayed(tables, priors, following, step, *, beta, gamma, ends, counted, message):
    """Thesis, equations 4.29 to 4.41; see `single`.

    Args:
        tables: `(q (m, A, m, B), values, logits)`.
        priors: `[P(a | z) (m, A), P(b | z) (m, B)]`, the agent's own first.
        following: W(s'; other's option, own option) `(m, m)`, or `(m,)` without a message.
        step: actions, options, previous options, own first; reward, discount.
        beta: see `single`.
        gamma: see `single`.
        ends: see `single`.
        counted: see `single`.
        message: whether the other's last option is known.
    """
    q, values, _ = tables
    (a, b), (z, w), (last_z, last_w), reward, discount = step
    m, actions, both = q.shape[0], q.shape[1], [1 - ends, ends]
    uniform, sums = np.full(m, 1 / m), Losses(tables, counted)
    for own in range(m):
        for other in range(m):
            value = following[other, own] if message else following[own]
            sums.q((own, a, other, b), (z, a, w, b), m * m, beta * reward + gamma * discount * value)
    for own in range(m):
        for act in range(actions):
            for other in range(m):
                sums.choice(
                    "other_action", (own, act, other), (z, a, w), q[own, act, other], priors[1][other]
                )
            sums.choice("other_option", (own, act), (z, a), values["other_action"][own, act], uniform)
    if not message:
        for own in range(m):
            sums.choice("action", (own,), (z,), values["other_option"][own], priors[0][own])
            kept = [values["action"][own], values["option"][()]]
            sums.choice("termination", (own,), (last_z,), kept, both)
        sums.choice("option", (), (), values["action"], uniform)
        return sums.losses, sums.grads
    for last in range(m):
        for own in range(m):
            for act in range(actions):
                kept = [values["other_action"][own, act, last], values["other_option"][own, act]]
                sums.choice("other_termination", (last, own, act), (last_w, z, a), kept, both)
            sums.choice(
                "action", (last, own), (last_w, z), values["other_termination"][last, own], priors[0][own]
            )
            kept = [values["action"][last, own], values["option"][last]]
            sums.choice("termination", (last, own), (last_w, last_z), kept, both)
        sums.choice("option", (last,), (last_w,), values["action"][last], uniform)
    return sums.losses, sums.grads
