"""Random bits against the published ones, and against those of JAX's own lowering."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32

from jaxmarl_fac.threefry import threefry

#: Key, counter and random words of Random123's known answers for Threefry-2x32 with 20 rounds.
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "expected"), KNOWN)
def test_known_answers(key, counter, expected):
    words = jax.jit(threefry)(*(jnp.uint32(word) for word in (*key, *counter)))
    assert tuple(map(int, words)) == expected
    assert jax.jit(threefry_2x32)(
        jnp.asarray(key, jnp.uint32), jnp.asarray(counter, jnp.uint32)
    ).tolist() == [*expected]


#: Draws of all kinds, of odd and even numbers, by keys in batches.
DRAWS = """
import jax, numpy as np
keys = jax.random.split(jax.random.fold_in(jax.random.key(7), 3), 5)
draw = jax.jit(lambda keys: (
    jax.vmap(lambda key: jax.random.bits(key, (3, 5)))(keys),
    jax.vmap(lambda key: jax.random.normal(key, (4,)))(keys),
    jax.vmap(lambda key: jax.random.categorical(key, np.zeros((2, 3), np.float32)))(keys),
    jax.random.permutation(keys[0], 11),
))
"""


def test_bits_are_those_of_jax():
    shown = "print([np.asarray(each).tobytes().hex() for each in draw(keys)])"
    theirs = subprocess.run(
        [sys.executable, "-c", DRAWS + shown], check=True, capture_output=True, text=True
    ).stdout
    names: dict = {}
    exec(DRAWS, names)
    assert str([np.asarray(each).tobytes().hex() for each in names["draw"](names["keys"])]) == theirs.strip()
    text = names["draw"].lower(names["keys"]).as_text()
    assert "stablehlo.while" not in text
    assert "shift_left" in text
