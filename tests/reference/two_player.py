"""Two-player learners written out step by step in NumPy: what the rules of `baselines` must do.

Each has whole numbers and rewards from its own side, and a method `policy(state)`.
"""

from collections import deque

import numpy as np

from tests.reference.equilibria import max_min_value
from tests.reference.soft_backups import nested


class Learner:
    """A table of joint values and a clock."""

    def __init__(self, states, own, other, rate, half_life, gamma):
        self.own, self.other = own, other
        self.rate, self.half_life, self.gamma = rate, half_life, gamma
        self.q = np.zeros((states, own, other))
        self.time = 0

    def step_size(self):
        return self.rate * self.half_life / (self.half_life + self.time) if self.half_life else self.rate

    def stage(self, state):
        """Value and policy."""
        raise AssertionError

    def policy(self, state):
        return self.stage(state)[1]

    def learn(self, state, own, other, rewards, discount, following):
        target = rewards[0] + self.gamma * discount * self.stage(following)[0]
        self.q[state, own, other] += self.step_size() * (target - self.q[state, own, other])
        self.time += 1


class Soft(Learner):
    """PR2, thesis ROMMEO and Balancing-Q by the nested sums of `soft_backups`."""

    def __init__(self, *size, order, beta, beta_other, growth, own_prior, other_prior, **settings):
        super().__init__(*size, **settings)
        self.order, self.betas, self.growth = order, (beta, beta_other), growth
        self.priors = np.asarray(own_prior), np.asarray(other_prior)

    def stage(self, state):
        beta, beta_other = (b * self.growth**self.time for b in self.betas)
        if self.order == "agent":
            value, _, policy, _ = nested(self.q[state], beta, beta_other, *self.priors)
            return value, policy
        value, _, opponent, replies = nested(self.q[state].T, beta_other, beta, *self.priors[::-1])
        return value, opponent @ replies


class SoftQ(Soft):
    """One's own actions alone."""

    def __init__(self, *size, **settings):
        super().__init__(*size, **settings)
        self.values = np.zeros(self.q.shape[:2])

    def stage(self, state):
        beta, prior = self.betas[0] * self.growth**self.time, self.priors[0]
        weights = [p * np.exp(beta * x) for p, x in zip(prior, self.values[state], strict=True)]
        return np.log(sum(weights)) / beta, np.array(weights) / sum(weights)

    def learn(self, state, own, other, rewards, discount, following):
        target = rewards[0] + self.gamma * discount * self.stage(following)[0]
        self.values[state, own] += self.step_size() * (target - self.values[state, own])
        self.time += 1


class Levels(Soft):
    """GR2 with both agents' values; weights of levels 1 to K."""

    def __init__(self, *size, weights, **settings):
        super().__init__(*size, **settings)
        self.weights = weights
        self.tables = np.zeros((2, *self.q.shape))

    def stage(self, state):
        beta = self.betas[0] * self.growth**self.time
        mine, theirs = self.tables[:, state]
        own, other = self.priors
        values, policy = np.zeros(2), np.zeros(self.own)
        for weight in self.weights:
            reply = [sum(other[b] * mine[a, b] for b in range(self.other)) for a in range(self.own)]
            answer = [sum(own[a] * theirs[a, b] for a in range(self.own)) for b in range(self.other)]
            raised = [
                np.array([p * np.exp(beta * x) for p, x in zip(prior, expected, strict=True)])
                for prior, expected in zip(self.priors, (reply, answer), strict=True)
            ]
            values += weight * np.log([r.sum() for r in raised]) / beta
            own, other = (r / r.sum() for r in raised)
            policy += weight * own
        return values, policy

    def learn(self, state, own, other, rewards, discount, following):
        targets = rewards + self.gamma * discount * self.stage(following)[0]
        self.tables[:, state, own, other] += self.step_size() * (targets - self.tables[:, state, own, other])
        self.time += 1


class Watching(Learner):
    """Remembers the other's last actions in each state."""

    def __init__(self, *size, window, **settings):
        super().__init__(*size, **settings)
        self.seen = [deque(maxlen=window) for _ in self.q]

    def frequencies(self, state):
        if not self.seen[state]:
            return np.full(self.other, 1 / self.other)
        return np.array([self.seen[state].count(b) for b in range(self.other)]) / len(self.seen[state])

    def learn(self, state, own, other, rewards, discount, following):
        self.seen[state].append(int(other))
        super().learn(state, own, other, rewards, discount, following)


class Rommeo(Watching):
    """ROMMEO-Q as published (Tian et al., 2019); with `empirical` the opponent model is the prior."""

    def __init__(self, *size, alpha, empirical, **settings):
        super().__init__(*size, **settings)
        self.alpha, self.empirical = alpha, empirical

    def stage(self, state):
        alpha, prior = self.alpha(self.time), self.frequencies(state)
        sums = np.exp(self.q[state] / alpha).sum(0)
        replies = np.exp(self.q[state] / alpha) / sums
        if self.empirical:
            return prior @ (alpha * np.log(sums)), replies @ prior
        weights = prior * sums**alpha
        return np.log(weights.sum()), replies @ (weights / weights.sum())


class JointAction(Watching):
    """The best reply to frequencies."""

    def stage(self, state):
        expected = self.q[state] @ self.frequencies(state)
        return expected.max(), np.eye(self.own)[int(np.argmax(expected))]


class FriendOrFoe(Learner):
    """The best joint action, or the worst case (values only: its policy need not be unique)."""

    def __init__(self, *size, foe, **settings):
        super().__init__(*size, **settings)
        self.foe = foe

    def stage(self, state):
        if self.foe:
            return max_min_value(self.q[state]), None
        best = np.unravel_index(np.argmax(self.q[state]), self.q[state].shape)
        return self.q[state].max(), np.eye(self.own)[best[0]]


class WoLF(Learner):
    """WoLF-PHC (Bowling and Veloso, 2002, table 4)."""

    def __init__(self, *size, winning, losing, **settings):
        super().__init__(*size, **settings)
        self.steps = winning, losing
        self.values = np.zeros(self.q.shape[:2])
        self.policies = np.full(self.values.shape, 1 / self.own)
        self.average = self.policies.copy()
        self.visits = np.zeros(len(self.values))

    def policy(self, state):
        return self.policies[state]

    def learn(self, state, own, other, rewards, discount, following):
        target = rewards[0] + self.gamma * discount * self.values[following].max()
        self.values[state, own] += self.step_size() * (target - self.values[state, own])
        self.visits[state] += 1
        self.average[state] += (self.policies[state] - self.average[state]) / self.visits[state]
        wins = self.policies[state] @ self.values[state] > self.average[state] @ self.values[state]
        step = self.steps[0] if wins else self.steps[1]
        best = int(np.argmax(self.values[state]))
        policy = self.policies[state].copy()
        for a in range(self.own):
            if a != best:
                given = min(policy[a], step / (self.own - 1))
                policy[a] -= given
                policy[best] += given
        self.policies = self.policies.copy()
        self.policies[state] = policy
        self.time += 1


class FMQ(Learner):
    """Kapetanakis and Kudenko (2002), with the whole history of each action."""

    def __init__(self, *size, weight, temperature, floor, **settings):
        super().__init__(*size, **settings)
        self.weight, self.temperature, self.floor = weight, temperature, floor
        self.values = np.zeros(self.q.shape[:2])
        self.rewards = {}

    def policy(self, state):
        expected = self.values[state].copy()
        for a in range(self.own):
            history = self.rewards.get((state, a), [])
            if history:
                share = history.count(max(history)) / len(history)
                expected[a] += self.weight * share * (max(history) - self.floor)
        weights = np.exp(expected / (self.temperature * np.exp(-0.1 * self.time) + 1))
        return weights / weights.sum()

    def learn(self, state, own, other, rewards, discount, following):
        target = rewards[0] + self.gamma * discount * self.values[following].max()
        self.values[state, own] += self.step_size() * (target - self.values[state, own])
        self.rewards.setdefault((int(state), int(own)), []).append(float(rewards[0]))
        self.time += 1
