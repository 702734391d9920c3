"""Threefry, from which JAX's random numbers come, as one kernel on CPU.

On CPU JAX lowers Threefry to a loop of five steps, each of a dozen small kernels. Such loops took more than
half of the time of VDN on MPE; written out, Threefry is fused with what reads it, takes a fraction of that,
and programs compile sooner. The bits are the same. Importing this module makes it so for every program that
the process compiles.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011), section 4.2, Threefry-2x32 with
20 rounds.
"""

import jax
import jax.numpy as jnp
from jax.extend.random import threefry2x32_p
from jax.interpreters import mlir

#: By how many bits each of eight rounds rotates the second word.
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
ROUNDS = 20
#: After so many rounds the key is added again.
ROUNDS_PER_KEY = 4
#: What the key's third word is made with.
PARITY = 0x1BD11BDA


def threefry(key_0: jax.Array, key_1: jax.Array, word_0: jax.Array, word_1: jax.Array) -> list[jax.Array]:
    """Two random words for each counter, uint32, of the shape that the arguments broadcast to.

    Args:
        key_0: first word of the key, uint32.
        key_1: second word of the key, uint32.
        word_0: first word of the counter, uint32.
        word_1: second word of the counter, uint32.
    """
    keys = (key_0, key_1, key_0 ^ key_1 ^ jnp.uint32(PARITY))
    word_0, word_1 = word_0 + key_0, word_1 + key_1
    for place in range(ROUNDS):
        bits = jnp.uint32(ROTATIONS[place % len(ROTATIONS)])
        word_0 = word_0 + word_1
        word_1 = word_0 ^ (word_1 << bits | word_1 >> (32 - bits))
        added, rest = divmod(place + 1, ROUNDS_PER_KEY)
        if not rest:
            word_0 = word_0 + keys[added % 3]
            word_1 = word_1 + keys[(added + 1) % 3] + jnp.uint32(added)
    return [word_0, word_1]


mlir.register_lowering(threefry2x32_p, mlir.lower_fun(threefry, multiple_results=True), platform="cpu")
