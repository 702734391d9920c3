"""TD3's updates in plain NumPy from the formulas: slow, with gradients by central differences in float64.

Parameters are nested dicts as Flax has them, `params["policy"]`, `params["critic"]`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.reference.q_learners import Params, linear, mlp, own_part

#: Of the central differences.
STEP = 1e-6


class Sample(NamedTuple):
    """A transition of all n agents. Actions lie in [-1, 1]."""

    views: np.ndarray  # (n, O)
    state: np.ndarray  # (S,)
    actions: np.ndarray  # (n,)
    rewards: np.ndarray  # (n,)
    discount: float
    next_views: np.ndarray  # (n, O)
    next_state: np.ndarray  # (S,)
    noise: np.ndarray  # (n, n), row i is the noise of agent i's target actions, itself first


def mapped(function: Callable[..., np.ndarray], *trees: Params) -> Params:
    """A function of the arrays of nested dicts with the same keys."""
    if not isinstance(trees[0], dict):
        return function(*trees)
    return {key: mapped(function, *(tree[key] for tree in trees)) for key in trees[0]}


def gradient(function: Callable[[Params], float], params: Params) -> Params:
    """The gradient of a function of nested dicts."""
    params = mapped(lambda leaf: np.array(leaf, float), params)

    def of_leaf(leaf: np.ndarray) -> np.ndarray:
        found = np.zeros_like(leaf)
        for index in np.ndindex(*leaf.shape):
            middle = leaf[index]
            leaf[index] = middle + STEP
            above = function(params)
            leaf[index] = middle - STEP
            found[index] = (above - function(params)) / (2 * STEP)
            leaf[index] = middle
        return found

    return mapped(of_leaf, params)


class Adam:
    """Kingma and Ba (2015), one step at a time."""

    def __init__(self, params: Params, rate: float):
        self.rate, self.steps = rate, 0
        self.mean = mapped(np.zeros_like, params)
        self.square = mapped(np.zeros_like, params)

    def step(self, params: Params, gradients: Params) -> Params:
        self.steps += 1
        self.mean = mapped(lambda m, g: 0.9 * m + 0.1 * g, self.mean, gradients)
        self.square = mapped(lambda v, g: 0.999 * v + 0.001 * g**2, self.square, gradients)
        first, second = 1 - 0.9**self.steps, 1 - 0.999**self.steps

        def moved(param: np.ndarray, m: np.ndarray, v: np.ndarray) -> np.ndarray:
            return param - self.rate * (m / first) / (np.sqrt(v / second) + 1e-8)

        return mapped(moved, params, self.mean, self.square)


def action(policy: Params, view: np.ndarray) -> float:
    return float(np.tanh(mlp_then_linear(policy, view)[0]))


def mlp_then_linear(net: Params, inputs: np.ndarray) -> np.ndarray:
    """A network that starts from 0: an MLP without outputs, then a linear layer."""
    hidden = mlp(net["MLP_0"], inputs, last_is_linear=False)
    return linear(net["Dense_0"], hidden)


class TD3Agent:
    """One agent of TD3 or, with a critic of the state and all actions, of MATD3."""

    def __init__(self, agent: int, params: Params, target: Params, centralised: bool, **settings: Any):
        self.agent, self.params, self.target, self.centralised = agent, params, target, centralised
        self.gamma, self.clip = settings["gamma"], settings["clip"]
        self.target_rate, self.period = settings["target_rate"], settings["period"]
        self.updates = 0
        self.optimisers = {name: Adam(params[name], settings["rate"]) for name in ("policy", "critic")}

    def q(self, critic: Params, k: int, view: np.ndarray, state: np.ndarray, joint: np.ndarray) -> float:
        """Q_k of the joint action, the agent's own first."""
        inputs = np.concatenate([state, joint]) if self.centralised else np.concatenate([view, joint[:1]])
        return float(mlp(own_part(critic, k), inputs, last_is_linear=True)[0])

    def order(self, joint: np.ndarray) -> np.ndarray:
        """All agents' numbers, the agent's own first."""
        return np.concatenate([[joint[self.agent]], np.delete(joint, self.agent)])

    def target_of(self, sample: Sample, target_policies: list[Params]) -> float:
        joint = [
            action(policy, view) for policy, view in zip(target_policies, sample.next_views, strict=True)
        ]
        noise = np.clip(sample.noise[self.agent], -self.clip, self.clip)
        joint = np.clip(self.order(np.asarray(joint)) + noise, -1, 1)
        view = sample.next_views[self.agent]
        lower = min(self.q(self.target["critic"], k, view, sample.next_state, joint) for k in (0, 1))
        return sample.rewards[self.agent] + self.gamma * sample.discount * lower

    def critic_loss(self, critic: Params, samples: list[Sample], targets: list[float]) -> float:
        errors = [
            self.q(critic, k, sample.views[self.agent], sample.state, self.order(sample.actions)) - y
            for sample, y in zip(samples, targets, strict=True)
            for k in (0, 1)
        ]
        return float(np.sum(np.square(errors))) / len(samples)

    def policy_value(self, policy: Params, samples: list[Sample]) -> float:
        def value(sample: Sample) -> float:
            joint = self.order(sample.actions).copy()
            view = sample.views[self.agent]
            joint[0] = action(policy, view)
            return self.q(self.params["critic"], 0, view, sample.state, joint)

        return float(np.mean([value(sample) for sample in samples]))

    def update(self, samples: list[Sample], target_policies: list[Params]) -> dict[str, float]:
        self.updates += 1
        targets = [self.target_of(sample, target_policies) for sample in samples]
        metrics = {
            "critic_loss": self.critic_loss(self.params["critic"], samples, targets),
            "mean_q": self.policy_value(self.params["policy"], samples),
        }
        down = {
            "critic": gradient(
                lambda critic: self.critic_loss(critic, samples, targets), self.params["critic"]
            ),
            "policy": gradient(lambda policy: -self.policy_value(policy, samples), self.params["policy"]),
        }
        due = self.updates % self.period == 0
        for name in ("policy", "critic") if due else ("critic",):
            self.params = self.params | {name: self.optimisers[name].step(self.params[name], down[name])}
        if due:
            rate = self.target_rate
            self.target = mapped(lambda old, new: (1 - rate) * old + rate * new, self.target, self.params)
        return metrics
