"""What a device does at its best, and what that means for a program."""

import time
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

REPEATS = 10
"""Calls that are timed."""

# Side of the matrices and bytes of the array that show what a device can do.
_SIDE, _BYTES = 2**11, 2**28
# Copies in a call: memory that is new to the process is slow when first used.
_COPIES = 16


class Peak(NamedTuple):
  """What a device does at its best, measured.

  Attributes:
    flops: of a large product of matrices, 1/s.
    moved: bytes read and written by a large copy, 1/s.
  """

  flops: float
  moved: float


def measure(dtype) -> Peak:
  """Measures the default device, in a dtype."""
  matrix = jnp.ones((_SIDE, _SIDE), dtype)
  product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
  array = jnp.ones(_BYTES // 4, jnp.float32)
  copy = jax.jit(
      lambda array: lax.fori_loop(0, _COPIES, lambda _, x: x + 1.0, array)
  ).lower(array).compile()
  # The best and not the median: a peak is what nothing disturbed.
  return Peak(
      2 * _SIDE**3 / min(times(product, (matrix, matrix))),
      2 * _BYTES * _COPIES / min(times(copy, (array,))),
  )


def floor(flops: float, moved: float, peak: Peak) -> float:
  """Milliseconds below which a device cannot do so much (Williams et al. 2009).

  Args:
    flops: of arithmetic.
    moved: bytes read and written.
    peak: of the device.
  """
  return 1e3 * max(flops / peak.flops, moved / peak.moved)


def times(function, arguments):
  """Seconds of each of `REPEATS` calls, to the end of their results."""
  seconds = []
  for _ in range(REPEATS):
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    seconds.append(time.perf_counter() - began)
  return seconds
