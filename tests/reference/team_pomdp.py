"""Slow games of hidden state by their rules, one episode at a time, and Bayes' rule one history at a time.

Every game takes the same uniform draws as the suite's: the smaller, the earlier the outcome in its order.
"""

import itertools

import numpy as np

NOTHING, LEFT, RIGHT = 0, 1, 2


def pick(chances, uniform):
    """The first outcome at which the sum of the chances exceeds the draw."""
    total = 0.0
    for outcome, chance in enumerate(chances):
        total += chance
        if uniform < total:
            return outcome
    raise AssertionError("the chances do not sum to 1")


class Chain:
    """Two states; in state 0 a 1 is seen three times of ten, in state 1 nine times."""

    agents = 1

    def __init__(self, state, public, private):
        self.state, self.over = pick([0.5, 0.5], state), False
        self.sign(private)

    def sign(self, private):
        self.private = (pick([0.7, 0.3] if self.state == 0 else [0.1, 0.9], private[0]),)
        self.public = 0

    def step(self, actions, state, public, private):
        reward = 1.0 if actions[0] == self.state else 0.0
        self.state = pick([0.9, 0.1] if self.state == 0 else [0.2, 0.8], state)
        self.sign(private)
        return reward


class Tiger:
    """Of one agent or two; state 0 is a tiger on the left."""

    def __init__(self, state, public, private):
        self.state, self.over = pick([0.5, 0.5], state), False
        self.public, self.private = 0, (NOTHING,) * self.agents

    def hear(self, informed, private):
        right = 0.85 if self.state == 0 else 0.15  # the chance of left
        self.private = tuple(
            (LEFT, RIGHT)[pick([right, 1 - right] if informed else [0.5, 0.5], draw)]
            for draw in private[: self.agents]
        )


class OneTiger(Tiger):
    agents = 1

    def step(self, actions, state, public, private):
        (action,) = actions
        reward = -1 if action == 0 else -100 if action - 1 == self.state else 10
        if action != 0:
            self.state = pick([0.5, 0.5], state)
        self.hear(action == 0, private)
        return reward


class TwoTigers(Tiger):
    agents = 2

    def step(self, actions, state, public, private):
        doors = {"listen": 0, "tiger": 0, "other": 0}
        for action in actions:
            doors["listen" if action == 0 else "tiger" if action - 1 == self.state else "other"] += 1
        reward = {
            (2, 0, 0): -2,
            (1, 1, 0): -101,
            (1, 0, 1): 9,
            (0, 2, 0): -50,
            (0, 1, 1): -100,
            (0, 0, 2): 20,
        }[tuple(doors.values())]
        if doors["listen"] < 2:
            self.state = pick([0.5, 0.5], state)
        self.hear(doors["listen"] == 2, private)
        self.public = 1 + 3 * actions[0] + actions[1]
        return reward


#: By both cards, then player 1's action, then player 2's.
PAYOFF = {
    (0, 0): ([10, 0, 0], [4, 8, 4], [10, 0, 0]),
    (0, 1): ([0, 0, 10], [4, 8, 4], [0, 0, 10]),
    (1, 0): ([0, 0, 10], [4, 8, 4], [0, 0, 0]),
    (1, 1): ([10, 0, 0], [4, 8, 4], [10, 0, 0]),
}


class Cards:
    agents = 2

    def __init__(self, state, public, private):
        self.private = divmod(pick([0.25] * 4, state), 2)
        self.public, self.over, self.first = 0, False, None
        self.state = 2 * self.private[0] + self.private[1]

    def available(self):
        """Whoever does not move can only do nothing."""
        return [{0, 1, 2}, {0}] if self.first is None else [{0}, {0, 1, 2}]

    def step(self, actions, state, public, private):
        if self.first is None:
            self.first = actions[0]
            self.state = 4 + 3 * self.state + self.first
            self.public = 1 + self.first
            return 0
        self.over = True
        return PAYOFF[self.private][self.first][actions[1]]


def forward(prior, transition, likelihood):
    """Filters and the log-likelihood of a chain, by summing over all of its paths."""
    steps, states = np.shape(likelihood)
    filters, total = [], 0.0
    for length in range(1, steps + 1):
        ends = np.zeros(states)
        for path in itertools.product(range(states), repeat=length):
            chance = prior[path[0]] * likelihood[0][path[0]]
            for t in range(1, length):
                chance *= transition[t - 1][path[t - 1]][path[t]] * likelihood[t][path[t]]
            ends[path[-1]] += chance
        total = ends.sum()
        filters.append(ends / total)
    return np.stack(filters), np.log(total)


def value_of_guessing(prior, transition, signs, steps):
    """The best sum of correct guesses of a chain's state: over all that may be seen, the likelier state."""
    total = 0.0
    for length in range(1, steps + 1):
        for seen in itertools.product(range(signs.shape[1]), repeat=length):
            likelihood = [signs[:, sign] for sign in seen]
            filters, log = forward(prior, [transition] * (length - 1), likelihood)
            total += np.exp(log) * filters[-1].max()
    return total


def tiger_value(belief, horizon, accuracy=0.85):
    """The best expected reward of the tiger problem, by the tree of all that may be done and heard."""
    if horizon == 0:
        return 0.0
    anew = tiger_value(0.5, horizon - 1, accuracy)
    best = max(-100 * belief + 10 * (1 - belief), 10 * belief - 100 * (1 - belief)) + anew
    listen = -1.0
    for right in (accuracy, 1 - accuracy):
        chance = belief * right + (1 - belief) * (1 - right)
        listen += chance * tiger_value(belief * right / chance, horizon - 1, accuracy)
    return max(best, listen)


def partial_policy_value(payoff, first):
    """Player 1's deterministic choices by card, and player 2 trying all of its own choices."""
    best = -np.inf
    for second in itertools.product(range(3), repeat=6):  # by its card and what it saw
        pays = [
            payoff[c1][c2][first[c1]][second[3 * c2 + first[c1]]]
            for c1, c2 in itertools.product(range(2), repeat=2)
        ]
        best = max(best, np.mean(pays))
    return best
