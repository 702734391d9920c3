"""Two-player games solved by linear programming and by definition."""

import numpy as np
from scipy.optimize import linprog


def max_min_value(payoff):
    """max_x min_b x·payoff[:, b]: maximise v with x·payoff[:, b] >= v for every b."""
    actions, columns = payoff.shape
    solution = linprog(
        np.append(np.zeros(actions), -1.0),
        A_ub=np.hstack([-payoff.T, np.ones((columns, 1))]),
        b_ub=np.zeros(columns),
        A_eq=np.append(np.ones(actions), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * actions + [(None, None)],
    )
    return -solution.fun


def gaps(payoffs, row, column):
    """Each player's gain from its best pure deviation."""
    first, second = payoffs
    own, other = row @ first @ column, row @ second @ column
    return (
        max(first[a] @ column - own for a in range(first.shape[0])),
        max(row @ second[:, b] - other for b in range(first.shape[1])),
    )
