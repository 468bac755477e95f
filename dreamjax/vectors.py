"""Arithmetic of many vectors of three numbers, as arrays [..., 3].

Written out axis by axis: XLA for CPUs hands a sum over an axis of three, which
is also what the derivative of a broadcast is, to a routine made for long rows,
and it then took a sixth of a training step. The derivative of taking an axis
is a padded array, of which it made one for each axis; here the axes are taken
and put together as a pair, each the other's derivative, and XLA sees that one
after the other is nothing.
"""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def split(vector):
  """The axes of vectors.

  Args:
    vector: f32[..., C].
  Returns:
    C arrays f32[...].
  """
  return tuple(vector[..., axis] for axis in range(vector.shape[-1]))


@jax.custom_vjp
def join(axes):
  """Vectors of their axes.

  Args:
    axes: C arrays f32[...].
  Returns:
    f32[..., C].
  """
  return jnp.stack(axes, axis=-1)


split.defvjp(
    lambda vector: (split(vector), None), lambda _, axes: (join(axes),)
)
join.defvjp(lambda axes: (join(axes), None), lambda _, vector: (split(vector),))


def dot(a, b):
  """Inner products.

  Args:
    a: f32[..., 3].
    b: f32[..., 3].
  Returns:
    f32[...].
  """
  (x, y, z), (u, v, w) = split(a), split(b)
  return x * u + y * v + z * w


def scale(number, vector):
  """Vectors times a number each.

  Args:
    number: f32[...].
    vector: f32[..., 3].
  Returns:
    f32[..., 3].
  """
  return join(tuple(number * axis for axis in split(vector)))
