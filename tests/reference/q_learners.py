"""The losses of IQL, VDN, QMIX and QTRAN for one transition, in plain NumPy loops from the papers.

Parameters come as nested dictionaries of arrays, named as flax names them. An observation is a tuple
`(agents_view, global_state, action_mask)`.
"""

from typing import Any

import numpy as np

Params = dict[str, Any]


def linear(layer: Params, x: np.ndarray) -> np.ndarray:
    y = x @ np.asarray(layer["kernel"], np.float64)
    return y + layer["bias"] if "bias" in layer else y


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def layer_norm(layer: Params, x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6) * layer["scale"] + layer["bias"]


def mlp(layers: Params, x: np.ndarray, last_is_linear: bool) -> np.ndarray:
    """Dense layers with ReLU, and a layer norm before it where there is one."""
    count = sum(name.startswith("Dense_") for name in layers)
    for i in range(count):
        x = linear(layers[f"Dense_{i}"], x)
        if f"LayerNorm_{i}" in layers:
            x = layer_norm(layers[f"LayerNorm_{i}"], x)
        if i < count - 1 or not last_is_linear:
            x = relu(x)
    return x


def own_part(params: Params, i: int) -> Params:
    """Agent i's parameters, from all agents' with a leading axis of agents."""
    return {
        name: own_part(part, i) if isinstance(part, dict) else np.asarray(part)[i]
        for name, part in params.items()
    }


def agent(params: Params, view: np.ndarray, i: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Agent i's utilities `(A,)` and the features `(H,)` below them.

    Whether agents share parameters and see ids is read from the parameters' shapes.
    """
    layers = params["agent"]
    if layers["Dense_0"]["kernel"].ndim == 3:
        layers = own_part(layers, i)
    ids = layers["MLP_0"]["Dense_0"]["kernel"].shape[0] > view.shape[1]
    inputs = np.concatenate([view[i], np.eye(n)[i]]) if ids else view[i]
    features = mlp(layers["MLP_0"], inputs, last_is_linear=False)
    return linear(layers["Dense_0"], features), features


def utilities(params: Params, observation: tuple) -> np.ndarray:
    view = observation[0]
    return np.stack([agent(params, view, i, len(view))[0] for i in range(len(view))])


def best_actions(values: np.ndarray, mask: np.ndarray) -> list[int]:
    """Every agent's best available action; the first of equals."""
    return [max(np.flatnonzero(mask[i]), key=lambda u: values[i][u]) for i in range(len(values))]


# Independent and mixed


def iql_loss(online: Params, target: Params, transition: tuple, gamma: float, double: bool = True) -> float:
    observation, actions, reward, discount, following = transition
    q, next_q = utilities(online, observation), utilities(target, following)
    best = best_actions(utilities(online if double else target, following), following[2])
    errors = [q[i][u] - (reward + gamma * discount * next_q[i][best[i]]) for i, u in enumerate(actions)]
    return float(np.mean(np.square(errors)))


def vdn_mix(params: Params, chosen: list[float], state: np.ndarray) -> float:
    return float(sum(chosen))


def qmix_mix(params: Params, chosen: list[float], state: np.ndarray) -> float:
    mixer = params["mixer"]
    w1 = np.abs(mlp(mixer["w1"], state, last_is_linear=True)).reshape(len(chosen), -1)
    w2 = np.abs(mlp(mixer["w2"], state, last_is_linear=True))
    z = np.asarray(chosen) @ w1 + linear(mixer["b1"], state)
    hidden = np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1)
    return float(hidden @ w2 + mlp(mixer["value"], state, last_is_linear=True)[0])


def mixed_loss(
    mix: Any, online: Params, target: Params, transition: tuple, gamma: float, double: bool
) -> float:
    observation, actions, reward, discount, following = transition
    q = utilities(online, observation)
    q_tot = mix(online, [q[i][u] for i, u in enumerate(actions)], observation[1])
    judge = utilities(online if double else target, following)
    best = best_actions(judge, following[2])
    next_q = utilities(target, following)
    next_q_tot = mix(target, [next_q[i][u] for i, u in enumerate(best)], following[1])
    return (q_tot - (reward + gamma * discount * next_q_tot)) ** 2


# QTRAN


class QTran:
    """QTRAN's networks with one set of parameters, at one observation.

    `lower` has every agent's utilities and features, if they come from elsewhere. Whether the joint networks
    see the state is read from the parameters: PyMARL's have one more layer on features and actions.
    """

    def __init__(
        self, params: Params, observation: tuple, aggregate: str, state_value: bool, lower: Any = None
    ) -> None:
        view, state, self.mask = observation
        sees_state = "q_encoding" in params
        self.state = state if sees_state else np.zeros(0)
        self.params, self.aggregate, self.n = params, aggregate, len(view)
        self.q, self.h_q, self.h_v = [], [], []
        for q, features in lower or [agent(params, view, i, self.n) for i in range(self.n)]:
            embedding = params["action_embedding"]["kernel"]
            self.q.append(q)
            h_q = [relu(linear(params["q_feature"], features) + row) for row in embedding]
            self.h_q.append([linear(params["q_encoding"], h) for h in h_q] if sees_state else h_q)
            self.h_v.append(relu(linear(params["v_feature"], features)) if "v_feature" in params else None)
        self.v_jt = 0.0
        if state_value:
            inputs = state if sees_state else self.combine(self.h_v)
            self.v_jt = float(mlp(params["value"], inputs, last_is_linear=True)[0])

    def combine(self, parts: list[np.ndarray]) -> np.ndarray:
        total = np.sum(parts, axis=0)
        return total / len(parts) if self.aggregate == "mean" else total

    def best(self) -> list[int]:
        return best_actions(np.stack(self.q), self.mask)

    def q_prime(self, joint: list[int]) -> float:
        return float(sum(self.q[i][u] for i, u in enumerate(joint)))

    def q_jt(self, joint: list[int]) -> float:
        """QTRAN-base's."""
        together = self.combine([self.h_q[i][u] for i, u in enumerate(joint)])
        inputs = np.concatenate([self.state, together])
        return float(mlp(self.params["joint"], inputs, last_is_linear=True)[0])

    def counterfactual(self, i: int, joint: list[int]) -> np.ndarray:
        """QTRAN-alt's Q_jt(u_i, u_-i) for every u_i, `(A,)`, from h_V of i and h_Q of the others."""
        others = self.combine([self.h_q[j][u] for j, u in enumerate(joint) if j != i])
        v_layer, others_layer = self.params["joint_v"], self.params["joint_others"]
        own = np.concatenate([self.state, self.h_v[i]])
        hidden = relu(linear(v_layer, own) + linear(others_layer, others))
        return mlp(self.params["joint"], hidden, last_is_linear=True)


def base_losses(now: QTran, actions: list[int], y: float) -> dict[str, float]:
    """QTRAN-base's three losses of a joint action whose target is y."""
    best = now.best()
    return {
        "td_loss": (now.q_jt(actions) - y) ** 2,
        "opt_loss": (now.q_prime(best) - now.q_jt(best) + now.v_jt) ** 2,
        "nopt_loss": min(now.q_prime(actions) - now.q_jt(actions) + now.v_jt, 0) ** 2,
    }


def alt_losses(now: QTran, actions: list[int], targets: list[float], nopt_min: str) -> dict[str, float]:
    """QTRAN-alt's, with a target for each agent."""
    best = now.best()
    td, opt, nopt = [], [], []
    for i, u in enumerate(actions):
        values = now.counterfactual(i, actions)
        td.append((values[u] - targets[i]) ** 2)
        opt.append((now.q_prime(best) - now.counterfactual(i, best)[best[i]] + now.v_jt) ** 2)
        gaps = []
        for own in np.flatnonzero(now.mask[i]):
            joint = [own if j == i else other for j, other in enumerate(actions)]
            gaps.append(now.q_prime(joint) - values[own] + now.v_jt)
        nopt.append(min(gaps) ** 2 if nopt_min == "signed" else min(gap**2 for gap in gaps))
    return {"td_loss": np.mean(td), "opt_loss": np.mean(opt), "nopt_loss": np.mean(nopt)}


def qtran_base_losses(
    online: Params,
    target: Params,
    transition: tuple,
    gamma: float,
    aggregate: str,
    state_value: bool,
    bootstrap: str,
    double: bool = False,
) -> dict[str, float]:
    observation, actions, reward, discount, following = transition
    now, then = (QTran(p, o, aggregate, state_value) for p, o in ((online, observation), (target, following)))
    next_best = (QTran(online, following, aggregate, state_value) if double else then).best()
    next_value = then.q_prime(next_best) if bootstrap == "q_prime" else then.q_jt(next_best)
    return base_losses(now, actions, reward + gamma * discount * next_value)


def qtran_alt_losses(
    online: Params,
    target: Params,
    transition: tuple,
    gamma: float,
    aggregate: str,
    state_value: bool,
    bootstrap: str,
    nopt_min: str,
    double: bool = False,
) -> dict[str, float]:
    observation, actions, reward, discount, following = transition
    now, then = (QTran(p, o, aggregate, state_value) for p, o in ((online, observation), (target, following)))
    next_best = (QTran(online, following, aggregate, state_value) if double else then).best()
    each = [then.counterfactual(i, next_best) for i in range(then.n)]
    next_values = [values[next_best[i]] for i, values in enumerate(each)]
    if bootstrap == "q_prime":
        next_values = [then.q_prime(next_best)] * then.n
    elif bootstrap == "q_max":
        next_values = [max(values[then.mask[i]].max() for i, values in enumerate(each))] * then.n
    return alt_losses(now, actions, [reward + gamma * discount * value for value in next_values], nopt_min)
