"""MAVEN's loss of whole episodes, in plain NumPy loops from the paper's equations.

Parameters as in `tests.reference.q_learners`; episodes as in `tests.reference.recurrent`, with a latent each.
"""

from typing import NamedTuple

import numpy as np

from tests.reference.q_learners import Params, best_actions, linear, mlp, qmix_mix
from tests.reference.recurrent import Episode, gru, unroll


class Terms(NamedTuple):
    """Of one episode of T steps."""

    td: np.ndarray  # (T,), squared TD errors
    log_q: np.ndarray  # (T,) of its latent at each step, or (1,) of the episode


def one_hot(value: int, count: int) -> np.ndarray:
    return np.eye(count)[value]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def utilities(params: Params, episode: Episode, latent: int, num_latents: int) -> np.ndarray:
    """`(T + 1, n, A)`: the agents' own last layer plus the one that the hypernetwork makes."""
    agent, shaping = params["agent"]["agent"], params["agent"]["shaping"]
    n, count = episode.masks.shape[1:]
    if "cell" in agent:
        own = unroll(agent, episode)
    else:
        own = []
        for view in episode.views:
            inputs = [np.concatenate([view[i], one_hot(i, n)]) for i in range(n)]
            features = [mlp(agent["MLP_0"], x, last_is_linear=False) for x in inputs]
            own.append([(linear(agent["Dense_0"], h), h) for h in features])
    found = np.zeros((len(own), n, count))
    for t, of_agents in enumerate(own):
        for i, (q, h) in enumerate(of_agents):
            made = linear(shaping, np.concatenate([one_hot(latent, num_latents), one_hot(i, n)]))
            weights = made.reshape(count, len(h))
            found[t, i] = q + [sum(weights[u, k] * h[k] for k in range(len(h))) for u in range(count)]
    return found


def log_discrimination(params: Params, q: np.ndarray, episode: Episode, latent: int) -> np.ndarray:
    """Log q_v of the latent, from the softmax policies of utilities and the states that show no latent."""
    behaviour = []
    for t in range(len(episode.actions)):
        policies = []
        for i in range(q.shape[1]):
            allowed = episode.masks[t, i]
            policy = np.zeros(q.shape[2])
            policy[allowed] = softmax(q[t, i][allowed])
            policies.append(policy)
        behaviour.append(np.concatenate([*policies, episode.states[t]]))
    discriminator = params["discriminator"]
    if "aggregator_cell" in discriminator:
        cell = discriminator["aggregator_cell"]
        hidden = np.zeros(cell["hr"]["kernel"].shape[-1])
        for x in behaviour:
            hidden = gru(cell, hidden, x)
        behaviour = [hidden]
    logits = [mlp(discriminator["MLP_0"], x, last_is_linear=True) for x in behaviour]
    return np.asarray([np.log(softmax(each)[latent]) for each in logits])


def log_latents(params: Params, episode: Episode, num_latents: int) -> np.ndarray:
    """The log-probabilities of the latents at the first state: uniform without a policy."""
    if "latent_policy" not in params:
        return np.full(num_latents, -np.log(num_latents))
    return np.log(softmax(mlp(params["latent_policy"], episode.states[0], last_is_linear=True)))


def terms(
    online: Params,
    target: Params,
    episode: Episode,
    latent: int,
    num_latents: int,
    gamma: float,
    mi_reward: float,
) -> Terms:
    """With double Q-learning and one-step targets."""
    q, target_q = (utilities(params, episode, latent, num_latents) for params in (online, target))
    log_q = log_discrimination(online, q, episode, latent)
    bonus = mi_reward * (log_q - log_latents(online, episode, num_latents)[latent])
    code = one_hot(latent, num_latents)
    td = []
    for t, actions in enumerate(episode.actions):
        best = best_actions(q[t + 1], episode.masks[t + 1])
        state, following = (np.concatenate([episode.states[k], code]) for k in (t, t + 1))
        next_q_tot = qmix_mix(target, [target_q[t + 1, i, u] for i, u in enumerate(best)], following)
        reward = episode.rewards[t] + (bonus[t] if mi_reward else 0)
        y = reward + gamma * episode.discounts[t] * next_q_tot
        td.append((qmix_mix(online, [q[t, i, u] for i, u in enumerate(actions)], state) - y) ** 2)
    return Terms(np.asarray(td), log_q)


def policy_loss(
    params: Params, fresh: list[tuple[Episode, int, float]], num_latents: int, entropy_weight: float
) -> tuple[float, float]:
    """REINFORCE's loss as a number, `-mean(w log pi(z))`, and the mean entropy.

    w is the ratio of probabilities times the return less the mean return.
    """
    baseline = np.mean([episode.rewards.sum() for episode, _, _ in fresh])
    losses, entropies = [], []
    for episode, latent, log_prob in fresh:
        log_probs = log_latents(params, episode, num_latents)
        ratio = np.exp(log_probs[latent] - log_prob)
        losses.append(-ratio * (episode.rewards.sum() - baseline) * log_probs[latent])
        entropies.append(-np.sum(np.exp(log_probs) * log_probs))
    return float(np.mean(losses) - entropy_weight * np.mean(entropies)), float(np.mean(entropies))
