"""Mixers: from the agents' chosen utilities to one joint value. All take one sample; callers vmap."""

from collections.abc import Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmarl_fac.networks import MLP


class VDNMixer(nn.Module):
    """`Q_tot = sum_i Q_i`: `(n,)` utilities and an ignored state `(S,)` to `()` (Sunehag et al., 2018)."""

    @nn.compact
    def __call__(self, utilities: jax.Array, global_state: jax.Array) -> jax.Array:
        chex.assert_rank(utilities, 1)
        del global_state
        return jnp.sum(utilities)


def monotone_mix(
    utilities: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array, value: jax.Array
) -> jax.Array:
    """`ELU(q W1 + b1) W2 + V` with the weights' absolute values: never decreasing in any utility.

    Shapes: `utilities (n,)`, `w1 (n, E)`, `b1 (E,)`, `w2 (E,)`, `value ()`; returns `()`.
    ELU comes after the bias (FACTS 1.5: QTRAN's release has it before, which handicaps QMIX).
    """
    chex.assert_rank([utilities, w1, b1, w2, value], [1, 2, 1, 1, 0])
    hidden = nn.elu(utilities @ jnp.abs(w1) + b1)  # (E,)
    return hidden @ jnp.abs(w2) + value


class QMixer(nn.Module):
    """QMIX's mixer: `monotone_mix` with weights that hypernetworks make from the state.

    `(n,)` utilities and the state `(S,)` to `()` (Rashid et al., 2018, section 4).

    Args:
        embed: E, the width of the one hidden layer.
        hypernet_widths: hidden layers of the two weight-making hypernetworks; () is one linear layer,
            as in the first paper; (64,) is PyMARL2's.
    """

    embed: int = 32
    hypernet_widths: Sequence[int] = ()

    @nn.compact
    def __call__(self, utilities: jax.Array, global_state: jax.Array) -> jax.Array:
        n = utilities.shape[0]
        w1 = MLP(self.hypernet_widths, n * self.embed, name="w1")(global_state).reshape(n, self.embed)
        w2 = MLP(self.hypernet_widths, self.embed, name="w2")(global_state)
        b1 = nn.Dense(self.embed, name="b1")(global_state)
        value = MLP((self.embed,), 1, name="value")(global_state)[0]
        return monotone_mix(utilities, w1, b1, w2, value)
