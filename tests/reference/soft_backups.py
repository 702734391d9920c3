"""The soft backups written out with sums and loops, in NumPy and float64."""

import numpy as np


def nested(q, beta_first, beta_second, first_prior, second_prior):
    """Who plays the row plays first; the column replies. Returns V, m(row), π(row), ρ(column|row)."""
    rows, columns = q.shape
    second_prior = np.broadcast_to(second_prior, q.shape)
    m, reply = np.zeros(rows), np.zeros(q.shape)
    for a in range(rows):
        total = 0.0
        for b in range(columns):
            reply[a, b] = second_prior[a, b] * np.exp(beta_second * q[a, b])
            total += reply[a, b]
        reply[a] /= total
        m[a] = np.log(total) / beta_second
    weights = np.array([first_prior[a] * np.exp(beta_first * m[a]) for a in range(rows)])
    return np.log(weights.sum()) / beta_first, m, weights / weights.sum(), reply


def pr2(k, own_prior, other_prior):
    """V and the executed policy of PR2, sums and logarithms written out."""
    q = np.array([np.log(sum(p * np.exp(x) for p, x in zip(other_prior, row, strict=True))) for row in k])
    value = np.log(sum(p * np.exp(x) for p, x in zip(own_prior, q, strict=True)))
    return value, own_prior * np.exp(q - value)


def rommeo(k, own_prior, other_prior):
    """V and the executed (marginal) policy of the thesis's ROMMEO, sums and logarithms written out."""
    q = np.array(
        [np.log(sum(p * np.exp(x) for p, x in zip(own_prior, column, strict=True))) for column in k.T]
    )
    value = np.log(sum(p * np.exp(x) for p, x in zip(other_prior, q, strict=True)))
    opponent = other_prior * np.exp(q - value)
    replies = own_prior[:, None] * np.exp(k - q)
    return value, replies @ opponent


def value_iteration(reward, transition, gamma, stage_value, iterations):
    """State values after so many sweeps over states and joint actions, from 0."""
    states, rows, columns = reward.shape
    values = np.zeros(states)
    for _ in range(iterations):
        q = np.zeros(reward.shape)
        for s in range(states):
            for a in range(rows):
                for b in range(columns):
                    q[s, a, b] = reward[s, a, b] + gamma * sum(
                        transition[s, a, b, t] * values[t] for t in range(states)
                    )
        values = np.array([stage_value(q[s]) for s in range(states)])
    return values


def probabilistic_balancing(reward, transition, gamma, beta_own, beta_other, iterations):
    """The thesis's recursion as printed, 3.49 to 3.54, uniform priors: Q^{-i} (S, A, B) and V^i (S,)."""
    opponent_q = beta_other * reward
    for _ in range(iterations):
        action_values = np.log(np.mean(np.exp(opponent_q), axis=2))  # (S, A)
        values = np.log(np.mean(np.exp(beta_own / beta_other * action_values), axis=1))  # (S,)
        opponent_q = beta_other * reward + gamma * beta_other / beta_own * transition @ values
    return opponent_q, values


def evaluation(reward, transition, gamma, policy, opponent, beta_own, beta_other, sweeps):
    """State values of fixed policies π(a|s,b) and ρ(b|s,a), both (S, A, B), under uniform priors."""
    states, rows, columns = reward.shape
    values = np.zeros(states)
    for _ in range(sweeps):
        following = np.zeros(states)
        for s in range(states):
            for a in range(rows):
                for b in range(columns):
                    q = reward[s, a, b] + gamma * transition[s, a, b] @ values
                    regularised = (
                        q
                        - np.log(policy[s, a, b] * rows) / beta_own
                        - np.log(opponent[s, a, b] * columns) / beta_other
                    )
                    following[s] += policy[s, a, b] * opponent[s, a, b] * regularised
        values = following
    return values
