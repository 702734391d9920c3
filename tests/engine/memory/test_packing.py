import functools

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxmarl_fac.memory.packing import from_bytes, to_bytes

# Bytes


def leaf(dtype, shape):
    if dtype == np.float32:  # every bit pattern, NaNs with payloads and -0 among them
        return arrays(np.uint32, shape).map(lambda bits: bits.view(np.float32))
    return arrays(dtype, shape)


def trees():
    shapes = {
        "flags": (np.bool_, (3,)),
        "cells": (np.int8, (2, 2)),
        "reward": (np.float32, ()),
        "draws": (np.float32, (2, 3)),
        "count": (np.int32, ()),
        "colour": (np.uint8, (1,)),
        "half": (np.int16, (2,)),
    }
    return st.fixed_dictionaries({name: leaf(*kind) for name, kind in shapes.items()})


@jax.jit
def packed(tree):
    return to_bytes(tree)


@functools.partial(jax.jit, static_argnums=1)
def unpacked(row, shapes):
    return from_bytes(row, jax.tree.unflatten(TREE, [jax.ShapeDtypeStruct(*shape) for shape in shapes]))


TREE = jax.tree.structure(dict.fromkeys(["flags", "cells", "reward", "draws", "count", "colour", "half"], 0))


@settings(max_examples=50, deadline=None)
@given(trees())
def test_what_goes_in_comes_out_to_the_bit(tree):
    row = packed(tree)
    assert row.dtype == np.uint8
    assert row.shape == (3 + 4 + 4 + 24 + 4 + 1 + 4,)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree))
    back = unpacked(row, shapes)
    for name, before in tree.items():
        after = np.asarray(back[name])
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        assert after.tobytes() == before.tobytes(), name
