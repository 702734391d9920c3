"""Soft options written out with loops, in NumPy and float64."""

import numpy as np


def soft_max(values, prior):
    """`log Σ P e^v` and the policy that attains it."""
    total = 0.0
    for value, probability in zip(values, prior, strict=True):
        total += probability * np.exp(value)
    return np.log(total), np.array([p * np.exp(v) / total for v, p in zip(values, prior, strict=True)])


def single(transition, reward, action_prior, option_prior, p, beta, gamma, sweeps, terminal=None):
    """One agent: V(s, z), V^H(s), U(s, z̄) and their policies after a number of sweeps."""
    states, actions = reward.shape
    options = len(option_prior)
    over = np.zeros(states, bool) if terminal is None else terminal
    message = np.zeros((states, options))
    for _ in range(sweeps + 1):
        value, action = np.zeros((states, options)), np.zeros((states, options, actions))
        master_value, master = np.zeros(states), np.zeros((states, options))
        following, ends = np.zeros((states, options)), np.zeros((states, options, 2))
        for s in range(states):
            for z in range(options):
                q = [
                    beta * reward[s, a]
                    + gamma * sum(transition[s, a, t] * message[t, z] for t in range(states) if not over[t])
                    for a in range(actions)
                ]
                value[s, z], action[s, z] = soft_max(q, action_prior[s, z])
            master_value[s], master[s] = soft_max(value[s], option_prior)
            for z in range(options):
                following[s, z], ends[s, z] = soft_max([value[s, z], master_value[s]], [1 - p, p])
        message = following
    return {"action": value, "option": master_value, "termination": message}, {
        "action": action,
        "option": master,
        "termination": ends,
    }


def delayed(transition, reward, own_prior, other_prior, own_options, other_options, p, beta, gamma, sweeps):
    """Two agents, from the first one's side: the tables of all choices and their policies.

    `own_prior (S, m, A)` and `other_prior (S, m_o, A_o)` are over actions, `own_options (m,)` and
    `other_options (m_o,)` over options.
    """
    states, own_actions, other_actions = reward.shape
    own_count, other_count = len(own_options), len(other_options)
    message = np.zeros((states, other_count, own_count))  # (s, z̄_o, z̄_i)
    for _ in range(sweeps + 1):
        values = {
            "other_action": np.zeros((states, own_count, own_actions, other_count)),
            "other_option": np.zeros((states, own_count, own_actions)),
            "other_termination": np.zeros((states, other_count, own_count, own_actions)),
            "action": np.zeros((states, other_count, own_count)),
            "option": np.zeros((states, other_count)),
            "termination": np.zeros((states, other_count, own_count)),
        }
        sizes = (other_actions, other_count, 2, own_actions, own_count, 2)
        policies = {
            name: np.zeros((*table.shape, size))
            for (name, table), size in zip(values.items(), sizes, strict=True)
        }

        def choose(name, index, choices, prior, values=values, policies=policies):
            values[name][index], policies[name][index] = soft_max(choices, prior)

        for s in range(states):
            for zi in range(own_count):
                for ai in range(own_actions):
                    for zo in range(other_count):
                        q = [
                            beta * reward[s, ai, ao]
                            + gamma
                            * sum(transition[s, ai, ao, t] * message[t, zo, zi] for t in range(states))
                            for ao in range(other_actions)
                        ]
                        choose("other_action", (s, zi, ai, zo), q, other_prior[s, zo])
                    of_options = values["other_action"][s, zi, ai]
                    choose("other_option", (s, zi, ai), of_options, other_options)
                    for before in range(other_count):
                        kept_or_drawn = [of_options[before], values["other_option"][s, zi, ai]]
                        choose("other_termination", (s, before, zi, ai), kept_or_drawn, [1 - p, p])
            for before in range(other_count):
                for zi in range(own_count):
                    of_actions = values["other_termination"][s, before, zi]
                    choose("action", (s, before, zi), of_actions, own_prior[s, zi])
                choose("option", (s, before), values["action"][s, before], own_options)
                for own_before in range(own_count):
                    kept_or_drawn = [values["action"][s, before, own_before], values["option"][s, before]]
                    choose("termination", (s, before, own_before), kept_or_drawn, [1 - p, p])
        message = values["termination"]
    return values, policies


def team_return(transition, reward, policies, start, steps, option_priors):
    """The expected return of two agents that act by termination, master and action policies, step by step.

    `policies` has two of the second results of `delayed`, each from its agent's side; previous options are
    drawn from the priors at first, and known to both.
    """
    states = len(start)
    counts = [len(prior) for prior in option_priors]
    where = {
        (s, x, y): start[s] * option_priors[0][x] * option_priors[1][y]
        for s in range(states)
        for x in range(counts[0])
        for y in range(counts[1])
    }
    total = 0.0
    for _ in range(steps):
        after = dict.fromkeys(where, 0.0)
        for (s, x, y), probability in where.items():
            own = decisions(policies[0], s, y, x)
            other = decisions(policies[1], s, x, y)
            for (z, a), first in own.items():
                for (w, b), second in other.items():
                    weight = probability * first * second
                    total += weight * reward[s, a, b]
                    for t in range(states):
                        after[t, z, w] += weight * transition[s, a, b, t]
        where = after
    return total


def decisions(policies, s, other_before, own_before):
    """The probability of each option and action of one agent."""
    keeps, ends = policies["termination"][s, other_before, own_before]
    master = policies["option"][s, other_before]
    found = {}
    for z, drawn in enumerate(master):
        chosen = ends * drawn + keeps * (z == own_before)
        for a, probability in enumerate(policies["action"][s, other_before, z]):
            found[z, a] = chosen * probability
    return found
