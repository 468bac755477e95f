"""Arithmetic of many vectors of three numbers, as arrays [..., 3].

Written out axis by axis: XLA for CPUs hands a sum over an axis of three, which
is also what the derivative of a broadcast is, to a routine made for long rows,
and it then took a sixth of a training step.
"""

import jax.numpy as jnp


def dot(a, b):
  """Inner products.

  Args:
    a: f32[..., 3].
    b: f32[..., 3].
  Returns:
    f32[...].
  """
  return (
      a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]
  )


def scale(number, vector):
  """Vectors times a number each.

  Args:
    number: f32[...].
    vector: f32[..., 3].
  Returns:
    f32[..., 3].
  """
  return jnp.stack([number * vector[..., axis] for axis in range(3)], axis=-1)
