"""Mixers: from the agents' utilities to one joint value. All take one sample; callers vmap."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmarl_fac.networks import MLP, weights_init
from jaxmarl_fac.products import Dense

#: Keeps weights that have to be positive off 0, where their absolute values could come to lie.
MIN_WEIGHT = 1e-10


class MixerInputs(NamedTuple):
    """All that a mixer may look at; each takes what it needs."""

    utilities: jax.Array  # (n,), Q_i of the chosen actions
    best_utilities: jax.Array  # (n,), the largest Q_i among the available actions
    actions: jax.Array  # (n, A), the chosen actions, one-hot
    agents_view: jax.Array  # (n, O)
    global_state: jax.Array  # (S,)


class VDNMixer(nn.Module):
    """`Q_tot = sum_i Q_i`, `()` (Sunehag et al., 2018)."""

    @nn.compact
    def __call__(self, inputs: MixerInputs) -> jax.Array:
        chex.assert_rank(inputs.utilities, 1)
        return jnp.sum(inputs.utilities)


#: What a mixer's hidden layer may apply: QMIX's own, and QTRAN's paper's.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"elu": nn.elu, "relu": nn.relu}


def monotone_mix(
    utilities: jax.Array,
    w1: jax.Array,
    b1: jax.Array,
    w2: jax.Array,
    value: jax.Array,
    activation: Callable[[jax.Array], jax.Array] = nn.elu,
) -> jax.Array:
    """`ELU(q W1 + b1) W2 + V` with the weights' absolute values: never decreasing in any utility.

    Shapes: `utilities (n,)`, `w1 (n, E)`, `b1 (E,)`, `w2 (E,)`, `value ()`; returns `()`. Another
    `activation` that never decreases may stand for ELU.
    ELU comes after the bias; QTRAN's release has it before, which handicaps QMIX.
    """
    chex.assert_rank([utilities, w1, b1, w2, value], [1, 2, 1, 1, 0])
    hidden = activation(utilities @ jnp.abs(w1) + b1)  # (E,)
    return hidden @ jnp.abs(w2) + value


class QMixer(nn.Module):
    """QMIX's mixer: `monotone_mix` with weights that hypernetworks make from the state, `()`.

    Source: Rashid et al., 2018, section 4.

    Args:
        embed: E, the width of the one hidden layer.
        hypernet_widths: hidden layers of the two weight-making hypernetworks; () is one linear layer,
            as in the first paper; (64,) is PyMARL2's.
        activation: of the hidden layer, by its name in `ACTIVATIONS`.
        init_scale: of all weights at the start; see `weights_init`.
    """

    embed: int = 32
    hypernet_widths: Sequence[int] = ()
    activation: str = "elu"
    init_scale: float = 0.0

    @nn.compact
    def __call__(self, inputs: MixerInputs) -> jax.Array:
        n, state = inputs.utilities.shape[0], inputs.global_state
        mlp = functools.partial(MLP, init_scale=self.init_scale)
        w1 = mlp(self.hypernet_widths, n * self.embed, name="w1")(state).reshape(n, self.embed)
        w2 = mlp(self.hypernet_widths, self.embed, name="w2")(state)
        b1 = Dense(self.embed, kernel_init=weights_init(self.init_scale), name="b1")(state)
        value = mlp((self.embed,), 1, name="value")(state)[0]
        return monotone_mix(inputs.utilities, w1, b1, w2, value, ACTIVATIONS[self.activation])


def dueling_mix(
    utilities: jax.Array,
    best_utilities: jax.Array,
    importance: jax.Array,
    *,
    stop_gradient: bool = True,
    minus_one: bool = True,
) -> jax.Array:
    """`sum_i V_i + sum_i lambda_i A_i` with `V_i = max Q_i`, `A_i = Q_i - V_i <= 0`, as `()`.

    Written as QPLEX's release has it, `sum_i Q_i + sum_i (lambda_i - 1) A_i`, which is the same number
    but sends another gradient to the utilities once `A_i` is held constant.

    Args:
        utilities: `(n,)`, Q_i of the chosen actions.
        best_utilities: `(n,)`, V_i.
        importance: `(n,)`, lambda_i above 0.
        stop_gradient: hold A_i constant in the second sum, as the release always does.
        minus_one: False takes `lambda_i` in place of `lambda_i - 1` there (the release's
            `is_minus_one`): the advantages then weigh `1 + lambda_i`.
    """
    chex.assert_rank([utilities, best_utilities, importance], 1)
    advantages = utilities - best_utilities
    if stop_gradient:
        advantages = jax.lax.stop_gradient(advantages)
    return jnp.sum(utilities) + jnp.sum((importance - 1 if minus_one else importance) * advantages)


class QPlexMixer(nn.Module):
    """QPLEX's duplex dueling mixer: any joint value with the IGM property, `()` (arXiv 2008.01062).

    `dueling_mix` of the transformed utilities `w_i(s) Q_i + b_i(s)` with the importance
    `lambda_i = sum_k |key_k(s)| sigmoid(agents_k(s))_i sigmoid(actions_k(s, u))_i`.

    With attention heads, as in the release's variant for StarCraft (`qplex_qatten_sc2`), w_i is Qatten's,
    `sum_h w_h(s) alpha_hi` (see `QattenMixer`; the release's queries end without a bias), and b_i = b(s) / n.

    Args:
        kernels: K; 10 for the paper's matrix games, 4 for StarCraft.
        hidden: hidden layers of the three networks of every kernel; (64, 64) for the matrix games.
        head_hidden: hidden layers of w_i and b_i, or of the attention's queries and head weights.
        weighted_head: False leaves the utilities as they are (w_i = 1, b_i = 0).
        attention_heads: H; 0 for w_i and b_i by networks of their own.
        attention_embed: E, the length of keys and queries, and the width of b's hidden layer.
        stop_gradient: see `dueling_mix`.
        minus_one: see `dueling_mix`.
    """

    kernels: int = 10
    hidden: Sequence[int] = (64, 64)
    head_hidden: Sequence[int] = (64,)
    weighted_head: bool = True
    attention_heads: int = 0
    attention_embed: int = 32
    stop_gradient: bool = True
    minus_one: bool = True

    def setup(self) -> None:
        """The attention, which the loss sees too."""
        if self.weighted_head and self.attention_heads:
            self.attention = Attention(self.attention_heads, self.attention_embed, self.head_hidden)

    @nn.compact
    def __call__(self, inputs: MixerInputs) -> jax.Array:
        n, state = inputs.utilities.shape[0], inputs.global_state
        chosen, best = inputs.utilities, inputs.best_utilities
        if self.weighted_head:
            if self.attention_heads:
                weight = self.attention(inputs)[0] + MIN_WEIGHT
                bias = MLP((self.attention_embed,), 1, name="head_bias")(state)[0] / n
            else:
                weight = jnp.abs(MLP(self.head_hidden, n, name="head_weight")(state)) + MIN_WEIGHT
                bias = MLP(self.head_hidden, n, name="head_bias")(state)
            chosen, best = weight * chosen + bias, weight * best + bias
        importance = _importance(inputs, self.kernels, self.hidden)
        return dueling_mix(
            chosen, best, importance, stop_gradient=self.stop_gradient, minus_one=self.minus_one
        )

    def squared_logits(self, inputs: MixerInputs) -> jax.Array:
        """`sum_h mean_i (query_h . key_hi)^2`, `()`, which the release's variant keeps small."""
        return jnp.sum(jnp.mean(jnp.square(self.attention(inputs)[1]), axis=-1))


class Attention(nn.Module):
    """Qatten's weights of the agents, `sum_h w_h(s) alpha_hi` as `(n,)`, and its logits `(H, n)`, unscaled.

    The arguments are `QattenMixer`'s, with a query layer for each head.
    """

    heads: int
    embed: int
    query_hidden: Sequence[int]

    @nn.compact
    def __call__(self, inputs: MixerInputs) -> tuple[jax.Array, jax.Array]:
        attention, weights, logits = _attention(inputs, self.heads, self.embed, self.query_hidden, True)
        return weights @ attention, logits


def _copies(count: int) -> Any:
    """`MLP` as so many networks of one input, with a leading axis on their parameters and outputs."""
    return nn.vmap(
        MLP, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=count
    )


def _importance(inputs: MixerInputs, kernels: int, hidden: Sequence[int]) -> jax.Array:
    """QPLEX's lambda_i above 0, `(n,)`, of K kernels: submodules of the mixer that calls it."""
    n, state = inputs.utilities.shape[0], inputs.global_state
    of_all = _copies(kernels)
    of_both = jnp.concatenate([state, inputs.actions.reshape(-1)])
    keys = jnp.abs(of_all(hidden, 1, name="keys")(state)) + MIN_WEIGHT  # (K, 1)
    agents = nn.sigmoid(of_all(hidden, n, name="agents")(state))  # (K, n)
    actions = nn.sigmoid(of_all(hidden, n, name="actions")(of_both))  # (K, n)
    return jnp.sum(keys * agents * actions, axis=0)


class QattenMixer(nn.Module):
    """Qatten's mixer, `()`: heads that attend to agents, linear in every Q_i (arXiv 2002.03939).

    `Q_tot = sum_h w_h(s) sum_i alpha_hi Q_i + c(s)`, where the attention alpha_h is the softmax over agents
    of `query_h(s) . key_hi / sqrt(E)`. Keys are made of each agent's own view and its id, where the
    release (PyMARL2's) takes the agent's slice of the state.

    Args:
        heads: H.
        embed: E, the length of keys and queries.
        query_hidden: the hidden layer of the queries and of the head weights w_h.
        value_hidden: the hidden layer of c.
        query_per_head: whether each head's query has a hidden layer of its own, as in the release, or all
            heads' queries share one.
    """

    heads: int = 4
    embed: int = 32
    query_hidden: int = 64
    value_hidden: int = 32
    query_per_head: bool = False

    @nn.compact
    def __call__(self, inputs: MixerInputs) -> jax.Array:
        per_head = self.query_per_head
        attention, weights, _ = _attention(inputs, self.heads, self.embed, (self.query_hidden,), per_head)
        value = MLP((self.value_hidden,), 1, name="value")(inputs.global_state)[0]
        return weights @ (attention @ inputs.utilities) + value


def _attention(
    inputs: MixerInputs, heads: int, embed: int, query_hidden: Sequence[int], query_per_head: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Qatten's alpha `(H, n)`, w `(H,)` and `query_h . key_hi` `(H, n)`: submodules of the calling mixer."""
    n, state = inputs.utilities.shape[0], inputs.global_state
    view = jnp.concatenate([inputs.agents_view, jnp.eye(n)], axis=-1)
    width = heads * embed
    keys = Dense(width, use_bias=False, name="key")(view).reshape(n, heads, embed)
    if query_per_head:
        query = _copies(heads)(query_hidden, embed, name="queries")(state)  # (H, E)
    else:
        query = MLP(query_hidden, width, name="query")(state).reshape(heads, embed)
    logits = jnp.einsum("he,nhe->hn", query, keys)
    weights = jnp.abs(MLP(query_hidden, heads, name="head_weight")(state))
    return nn.softmax(logits / jnp.sqrt(embed), axis=-1), weights, logits


class FOPMixer(nn.Module):
    """FOP's mixer, `()`: Qatten's weights of the agents' values, QPLEX's importance of their advantages.

    `sum_i (eta_i Q_i + b_i) + sum_i (lambda_i - 1) sg[eta_i (Q_i - V_i)]` with `eta_i > 0` by attention
    (Zhang et al., 2021, "FOP: Factorizing optimal joint policy of maximum-entropy multi-agent reinforcement
    learning", section 4). `best_utilities` of its inputs are the agents' soft values V_i.

    Args:
        kernels: K, summands of lambda_i.
        hidden: hidden layers of the networks that make lambda_i.
        heads: H, of attention.
        embed: E, the length of keys and queries.
        query_hidden: the hidden layer of queries, head weights and biases.
    """

    kernels: int = 4
    hidden: Sequence[int] = (64,)
    heads: int = 4
    embed: int = 32
    query_hidden: int = 64

    @nn.compact
    def __call__(self, inputs: MixerInputs) -> jax.Array:
        attention, weights, _ = _attention(inputs, self.heads, self.embed, (self.query_hidden,))
        eta = weights @ attention + MIN_WEIGHT  # (n,)
        bias = MLP((self.query_hidden,), inputs.utilities.shape[0], name="bias")(inputs.global_state)
        importance = _importance(inputs, self.kernels, self.hidden)
        chosen, best = eta * inputs.utilities + bias, eta * inputs.best_utilities + bias
        return dueling_mix(chosen, best, importance)


class CentralMixer(nn.Module):
    """Weighted QMIX's unrestricted joint value of state and chosen utilities, `()` (arXiv 2006.10800).

    Args:
        widths: hidden layers over state and utilities together.
        value_hidden: the hidden layer of V(s), which is added.
    """

    widths: Sequence[int] = (256, 256, 256)
    value_hidden: int = 256

    @nn.compact
    def __call__(self, inputs: MixerInputs) -> jax.Array:
        of_both = jnp.concatenate([inputs.global_state, inputs.utilities])
        joint = MLP(self.widths, 1, name="joint")(of_both)[0]
        return joint + MLP((self.value_hidden,), 1, name="value")(inputs.global_state)[0]
