"""Slow team decision processes in NumPy: the line world by its rules, and solvers by brute force."""

import itertools

import numpy as np

from tests.reference.projections import additive_by_least_squares


class LineWorld:
    """Four cells, a walker and a button; one episode at a time."""

    def __init__(self):
        self.cell, self.left, self.over = 3, 4, False

    def observations(self):
        """What the button's and the walker's agent see, as numbers."""
        in_time = int(self.left > self.cell)
        return (2 if self.cell == 0 else 0) + in_time, 2 * self.cell + in_time

    def step(self, press, walk, normal):
        """The reward with noise, given a standard normal draw."""
        assert not self.over
        self.left -= 1
        noise = normal
        if self.cell == 0 and walk == 0:
            self.over = True
            return (10 if press else -30) + noise
        clean = 0
        if walk == 1 and self.cell > 0:
            self.cell -= 1
            clean = -30 if press else 0
        elif walk == 2 and self.cell < 3:
            self.cell += 1
        elif walk != 0:
            noise = 3 * normal
        self.over = self.left == 0
        return clean + noise


def joint_actions(reward):
    """All joint actions of tables `(S, A_1, ..., A_n)`."""
    return list(itertools.product(*(range(count) for count in reward.shape[1:])))


def backup(transition, reward, terminal, discount, values):
    """One Bellman backup, one entry at a time."""
    y = np.zeros_like(reward)
    for state in range(len(terminal)):
        for joint in joint_actions(reward):
            if not terminal[state]:
                chances = transition[(state, *joint)]
                onward = sum(c * v for c, v, end in zip(chances, values, terminal, strict=True) if not end)
                y[(state, *joint)] = reward[(state, *joint)] + discount * onward
    return y


def policy_value(transition, reward, terminal, discount, policy):
    """The values of a deterministic joint policy, a joint action for each state."""
    states = len(terminal)
    rows = np.stack([transition[(s, *policy[s])] for s in range(states)]) * ~terminal
    pays = np.array([reward[(s, *policy[s])] for s in range(states)])
    rows[terminal], pays[terminal] = 0, 0
    return np.linalg.solve(np.eye(states) - discount * rows, pays)


def all_policies(reward):
    """Every deterministic joint policy."""
    return itertools.product(joint_actions(reward), repeat=len(reward))


def best_values(transition, reward, terminal, discount):
    """V*, as the largest value in each state over every deterministic joint policy."""
    values = [policy_value(transition, reward, terminal, discount, policy) for policy in all_policies(reward)]
    return np.max(values, axis=0)


def q_of_policy(transition, reward, terminal, discount, policy):
    """For each agent the value of each action if the others keep to the policy, n of `(S, A_k)`."""
    values = policy_value(transition, reward, terminal, discount, policy)
    y = backup(transition, reward, terminal, discount, values)
    return tuple(
        np.array(
            [
                [y[(s, *joint[:k], action, *joint[k + 1 :])] for action in range(count)]
                for s, joint in enumerate(policy)
            ]
        )
        for k, count in enumerate(reward.shape[1:])
    )


def operator_b1(transition, reward, terminal, discount, q):
    """LTQL's B_I, entry by entry."""
    updated = [np.zeros_like(own) for own in q]
    for k, own in enumerate(q):
        y = backup(transition, reward, terminal, discount, own.max(axis=1))
        for state in range(len(reward)):
            joint = [int(np.argmax(other[state])) for other in q]
            for action in range(own.shape[1]):
                joint[k] = action
                updated[k][state, action] = y[(state, *joint)]
    return updated


def operator_b2(transition, reward, terminal, discount, q):
    """LTQL's B_II, entry by entry."""
    updated = [own.copy() for own in q]
    for k, own in enumerate(q):
        y = backup(transition, reward, terminal, discount, own.max(axis=1))
        for state in range(len(reward)):
            for joint in joint_actions(reward):
                entry = (state, joint[k])
                updated[k][entry] = max(updated[k][entry], y[(state, *joint)])
    return updated


def fma_fqi(transition, reward, terminal, discount, iterations, epsilon):
    """V_0, ..., V_T of fitted Q-iteration with a least-squares solve per state; uniform exploration."""
    q_tot = np.zeros_like(reward)
    trace = [q_tot.reshape(len(reward), -1).max(axis=1)]
    for _ in range(iterations):
        y = backup(transition, reward, terminal, discount, trace[-1])
        fitted = np.zeros_like(q_tot)
        for state, table in enumerate(q_tot):
            best = np.unravel_index(np.argmax(table), table.shape)  # additive: each agent's own best too
            data = [
                np.full(count, epsilon / count) + (1 - epsilon) * (np.arange(count) == action)
                for count, action in zip(table.shape, best, strict=True)
            ]
            fitted[state] = additive_by_least_squares(y[state], data)
        q_tot = fitted
        trace.append(q_tot.reshape(len(reward), -1).max(axis=1))
    return np.stack(trace)
