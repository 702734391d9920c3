"""One update of the policy-gradient methods in loops over environments, steps and agents, from the formulas.

Networks see one observation at a time, and recurrent agents step by step. Parameters are named as flax names
them. All is written with `jax.numpy`, so that the loss can be differentiated.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.reference.recurrent import lambda_returns

Params = dict[str, Any]


class Rollout(NamedTuple):
    """T rows of one environment; where an episode has ended, one is spent on a reset, with mask 0."""

    views: np.ndarray  # (T + 1, n, O)
    states: np.ndarray  # (T + 1, S)
    masks: np.ndarray  # (T + 1, n, A)
    first: np.ndarray  # (T + 1,)
    hidden: np.ndarray | None  # (n, H), of recurrent agents before row 0
    last_actions: np.ndarray | None  # (n,)
    actions: np.ndarray  # (T, n)
    rewards: np.ndarray  # (T,), or (T, n)
    discounts: np.ndarray  # (T,)
    mask: np.ndarray  # (T,)


class Method(NamedTuple):
    """What makes an algorithm.

    `critic` is one of none, own, state, joint, counterfactual, sum and mix; `objective` of score, clip,
    joint clip, penalty and joint penalty.
    """

    critic: str
    objective: str = "score"
    gamma: float = 0.9
    lambda_: float = 0.6
    value_coefficient: float = 0.7
    entropy_coefficient: float = 0.05
    penalty: float = 0.0
    clip: float = 0.2
    share: float = 0.0
    normalise: bool = False
    time_limit: int = 1


class Known(NamedTuple):
    """What is known of one environment's rollout before the update."""

    probs: list  # [t][i] -> (A,)
    advantages: np.ndarray  # (T, n)
    targets: np.ndarray  # (T, n), of the critic; one column where it has one value for all
    counted: list[int]  # rows that are learned from


# Networks


def linear(layer: Params, x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"]


def mlp(layers: Params, x: jax.Array, last_is_linear: bool = True) -> jax.Array:
    names = sorted(layers, key=lambda name: int(name.split("_")[1]))
    for name in names:
        x = linear(layers[name], x)
        if name != names[-1] or not last_is_linear:
            x = jnp.maximum(x, 0)
    return x


def gru(cell: Params, h: jax.Array, x: jax.Array) -> jax.Array:
    def gate(name: str) -> jax.Array:
        return linear(cell[f"i{name}"], x) + h @ cell[f"h{name}"]["kernel"]

    reset, update = 1 / (1 + jnp.exp(-gate("r"))), 1 / (1 + jnp.exp(-gate("z")))
    new = jnp.tanh(linear(cell["in"], x) + reset * linear(cell["hn"], h))
    return (1 - update) * new + update * h


def outputs(params: Params, rollout: Rollout) -> list[list[jax.Array]]:
    """`[t][i] -> (A + k,)` at the T + 1 observations, of agents that share parameters and see ids."""
    agent, n = params["agent"], rollout.masks.shape[1]
    found, hidden = [], list(rollout.hidden) if rollout.hidden is not None else []
    for t, view in enumerate(rollout.views):
        each = []
        for i in range(n):
            x = [view[i]]
            if hidden:
                taken = rollout.last_actions[i] if t == 0 else rollout.actions[t - 1, i]
                begins = rollout.first[t] or taken < 0
                width = agent["head"]["kernel"].shape[-1]  # last actions are shown as wide as outputs
                x.append(np.zeros(width) if begins else np.eye(width)[taken])
                if rollout.first[t]:
                    hidden[i] = jnp.zeros(len(hidden[i]))
            x = jnp.concatenate([*x, np.eye(n)[i]])
            if hidden:
                hidden[i] = gru(agent["cell"], hidden[i], mlp(agent["encoder"], x, last_is_linear=False))
                each.append(linear(agent["head"], hidden[i]))
            else:
                each.append(linear(agent["Dense_0"], mlp(agent["MLP_0"], x, last_is_linear=False)))
        found.append(each)
    return found


def probabilities(logits: jax.Array, mask: np.ndarray, share: float) -> jax.Array:
    """`(A,)`: a softmax over the available actions, mixed with a share that is uniform over them."""
    available = np.flatnonzero(mask)
    e = jnp.exp(logits[available] - jnp.max(logits[available]))
    mixed = (1 - share) * e / jnp.sum(e) + share / len(available)
    return jnp.zeros(len(mask)).at[available].set(mixed)


def values(
    method: Method, params: Params, outs: list[jax.Array], rollout: Rollout, t: int, actions: np.ndarray
) -> list[jax.Array]:
    """The critic at row t: one value, or one for each agent; of COMA's `Q(s, (., u_-i))`, `(A,)`."""
    n, count = rollout.masks.shape[1:]
    own, state = [each[-1] for each in outs], rollout.states[t]
    hot = [np.eye(count)[action] for action in actions]
    match method.critic:
        case "own":
            return own
        case "state":
            return [mlp(params["critic"]["MLP_0"], state)[0]]
        case "joint":
            return [mlp(params["critic"]["MLP_0"], jnp.concatenate([state, *hot]))[0]]
        case "counterfactual":
            found = []
            for i in range(n):
                others = [np.zeros(count) if j == i else hot[j] for j in range(n)]
                inputs = jnp.concatenate([state, rollout.views[t, i], *others, np.eye(n)[i]])
                found.append(mlp(params["critic"]["MLP_0"], inputs))
            return found
        case "sum":
            return [sum(own)]
        case "mix":
            mixer = params["critic"]["mixer"]
            w1 = jnp.abs(mlp(mixer["w1"], state)).reshape(n, -1)
            w2 = jnp.abs(mlp(mixer["w2"], state))
            z = jnp.asarray(own) @ w1 + linear(mixer["b1"], state)
            hidden = jnp.where(z > 0, z, jnp.exp(jnp.minimum(z, 0)) - 1)
            return [hidden @ w2 + mlp(mixer["value"], state)[0]]
    return [jnp.zeros(())] * n


# Before an update


def pieces(rollout: Rollout) -> list[list[int]]:
    """Rows in sequence that are steps of one episode."""
    found: list[list[int]] = []
    for t, counts in enumerate(rollout.mask):
        if not counts:
            continue
        if t > 0 and rollout.mask[t - 1] and not rollout.first[t]:
            found[-1].append(t)
        else:
            found.append([t])
    return found


def counted(method: Method, rollout: Rollout) -> list[int]:
    """All steps; with no critic those of episodes that surely are whole."""
    steps = [t for piece in pieces(rollout) for t in piece]
    if method.critic != "none":
        return steps
    return [
        t
        for piece in pieces(rollout)
        for t in piece
        if rollout.first[piece[0]] and piece[0] + method.time_limit <= len(rollout.mask)
    ]


def known_before(
    method: Method, params: Params, target: Params, rollouts: list[Rollout], last_actions: list[np.ndarray]
) -> list[Known]:
    """Of every environment; `last_actions` are those that would follow the last row."""
    found = []
    for rollout, last in zip(rollouts, last_actions, strict=True):
        outs = outputs(params, rollout)
        target_outs = outputs(target, rollout)
        steps, n = rollout.actions.shape
        probs = [
            [probabilities(outs[t][i], rollout.masks[t, i], method.share) for i in range(n)]
            for t in range(steps)
        ]
        actions = [*rollout.actions, last]
        # The critic's value before each row, and by its target parameters after it.
        before, after = [], []
        for t in range(steps):
            now = values(method, params, outs[t], rollout, t, actions[t])
            then = values(method, target, target_outs[t + 1], rollout, t + 1, actions[t + 1])
            if method.critic == "counterfactual":
                then = [q[u] for q, u in zip(then, actions[t + 1], strict=True)]
            before.append(now)
            after.append(then)
        columns = len(after[0])
        targets = np.zeros((steps, columns))
        for column in range(columns):
            rewards = rollout.rewards if rollout.rewards.ndim == 1 else rollout.rewards[:, column]
            for rows in pieces(rollout):
                following = np.asarray([float(after[t][column]) for t in rows])
                lambda_ = 1.0 if method.critic == "none" else method.lambda_
                targets[rows, column] = lambda_returns(
                    rewards[rows], rollout.discounts[rows], following, method.gamma, lambda_
                )
        advantages = np.zeros((steps, n))
        for t in range(steps):
            for i in range(n):
                column = i if columns > 1 else 0
                match method.critic:
                    case "joint":
                        advantages[t, i] = before[t][0]
                    case "counterfactual":
                        q = before[t][i]
                        advantages[t, i] = q[rollout.actions[t, i]] - probs[t][i] @ q
                    case _:
                        advantages[t, i] = targets[t, column] - before[t][column]
        found.append(Known(probs, advantages, targets, counted(method, rollout)))
    if method.normalise:
        every = np.concatenate([known.advantages[known.counted].ravel() for known in found])
        found = [
            known._replace(advantages=(known.advantages - every.mean()) / (every.std() + 1e-8))
            for known in found
        ]
    return found


# The loss


def step_parts(
    method: Method, params: Params, outs: list[jax.Array], rollout: Rollout, known: Known, t: int
) -> dict[str, jax.Array]:
    """What row t adds to the loss."""
    n = len(outs)
    joint = method.objective.startswith("joint")
    ratios, policy_loss, entropy, divergence = [], 0.0, 0.0, 0.0
    for i in range(n):
        probs, old = probabilities(outs[i], rollout.masks[t, i], method.share), known.probs[t][i]
        u, advantage = rollout.actions[t, i], known.advantages[t, i]
        ratios.append(probs[u] / float(old[u]))
        if method.objective == "score":
            policy_loss -= advantage * jnp.log(probs[u])
        elif not joint:
            policy_loss -= surrogate(method, ratios[i], advantage)
        for a in np.flatnonzero(rollout.masks[t, i]):
            entropy -= probs[a] * jnp.log(probs[a])
            divergence += float(old[a]) * (np.log(float(old[a])) - jnp.log(probs[a]))
    if joint:
        policy_loss -= surrogate(method, jnp.prod(jnp.asarray(ratios)), known.advantages[t].mean())
    found = values(method, params, outs, rollout, t, rollout.actions[t])
    if method.critic == "counterfactual":
        found = [q[u] for q, u in zip(found, rollout.actions[t], strict=True)]
    critic_loss = sum((value - y) ** 2 for value, y in zip(found, known.targets[t], strict=True))
    if method.critic == "none":
        critic_loss = jnp.zeros(())
    return {
        "policy_loss": policy_loss,
        "critic_loss": critic_loss,
        "entropy": entropy,
        "divergence": divergence,
    }


def surrogate(method: Method, ratio: jax.Array, advantage: float) -> jax.Array:
    """What PPO maximises."""
    if not method.objective.endswith("clip"):
        return ratio * advantage
    bound = 1 + method.clip if advantage > 0 else 1 - method.clip
    return jnp.minimum(ratio, bound) * advantage if advantage > 0 else jnp.maximum(ratio, bound) * advantage


def parts(method: Method, params: Params, rollouts: list[Rollout], known: list[Known]) -> dict[str, Any]:
    """Means over the steps that count."""
    rows = []
    for rollout, before in zip(rollouts, known, strict=True):
        outs = outputs(params, rollout)
        rows += [step_parts(method, params, outs[t], rollout, before, t) for t in before.counted]
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def loss(method: Method, params: Params, rollouts: list[Rollout], known: list[Known]) -> jax.Array:
    """Divided by all rows, resets and what does not count included."""
    found = parts(method, params, rollouts, known)
    total = found["policy_loss"] + method.value_coefficient * found["critic_loss"]
    total += method.penalty * found["divergence"] - method.entropy_coefficient * found["entropy"]
    share = sum(len(each.counted) for each in known) / sum(len(each.mask) for each in rollouts)
    return total * share


def descent(
    method: Method,
    params: Params,
    rollouts: list[Rollout],
    known: list[Known],
    minibatches: list[list[int]],
    rates: tuple[float, float],
) -> Params:
    """The parameters after one step along the gradient for each minibatch; rates of agents and critic."""
    for rows in minibatches:
        part = [rollouts[row] for row in rows], [known[row] for row in rows]
        gradient = jax.grad(lambda params, part=part: loss(method, params, *part))(params)
        params = {
            name: jax.tree.map(
                lambda p, g, r=rates[name == "critic"]: p - r * g, params[name], gradient[name]
            )
            for name in params
        }
    return params
