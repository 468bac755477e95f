"""Multiresolution hash encoding (Müller et al. 2022, "Instant-NGP").

Notation: N points, L levels, F features per level, T table entries.

The encoding E(table, x) is linear in the table and, inside a cell, a product
of one weight per axis. With a cotangent g of the features and a cotangent v
of the position gradient, everything that a training step with analytic
normals needs is

  A(x, g)        = (d<g, E>/dtable)        `_table_gradient`
  P(table, x, g) = (d<g, E>/dx)            `_position_gradient`

and, because <g, E> is linear in table and in g, the second order is

  dA: E and P with the cotangent in place of the table;
  dP: d<v, P>/dtable, d<v, P>/dx, d<v, P>/dg   `_second`.

Each is a kernel of its own, so that XLA drops those that nobody reads.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from dreamjax.ops import arguments
from dreamjax.ops import hash_grid
from dreamjax.ops import kernels

# Müller et al. 2022, Eq. 4; the first factor is 1 to keep x-neighbours close.
_PRIMES = (1, 2654435761, 805459861)


def hash_encode(table, position, grid):
  """Features of points, interpolated on every level.

  Args:
    table: f32[..., T, F], T = grid.num_entries, F = grid.features.
    position: f32[..., N, 3], in [0, 1]. Outside, the cell at the border is
      extrapolated; NaN gives NaN features.
    grid: hash_grid.HashGrid.
  Returns:
    f32[..., N, L F]; level l, feature f is column l F + f. Differentiable
    twice in reverse mode, with respect to table and position.
  Raises:
    TypeError: a dtype is not float32, or the grid is no HashGrid.
    ValueError: a shape does not fit, or the grid's levels do not.
  """
  hash_grid.check_grid("hash_encode", grid)
  arguments.check(
      "hash_encode",
      table=(table, "float32", (grid.num_entries, grid.features)),
      position=(position, "float32", ("N", 3)),
  )
  return _encode(table, position, grid)


def definition(table, position, grid):
  """`hash_encode` in jax.numpy: specification, oracle and fallback."""
  if position.ndim > 2:
    return jax.vmap(functools.partial(definition, grid=grid))(table, position)
  columns = []
  for scale, resolution, offset, size in zip(
      grid.scales, grid.resolutions, grid.offsets, grid.sizes
  ):
    place = position * jnp.float32(scale) + jnp.float32(0.5)
    cell = jnp.clip(jnp.floor(place), 0, resolution - 1)
    fraction = place - cell
    if grid.smoothstep:
      fraction = fraction * fraction * (3 - 2 * fraction)
    cell = cell.astype(jnp.uint32)
    total = jnp.zeros((position.shape[0], grid.features), jnp.float32)
    for corner in range(8):
      bits = [corner >> axis & 1 for axis in range(3)]
      weight = math.prod(
          fraction[:, axis] if bit else 1 - fraction[:, axis]
          for axis, bit in enumerate(bits)
      )
      x, y, z = (cell[:, a] + jnp.uint32(bit) for a, bit in enumerate(bits))
      if resolution**3 <= size:
        index = x + resolution * (y + resolution * z)
        index = jnp.where(index < size, index, index - size)
      else:
        index = x ^ y * jnp.uint32(_PRIMES[1]) ^ z * jnp.uint32(_PRIMES[2])
        index = index & jnp.uint32(size - 1)
      entry = jnp.take(table, offset + index.astype(jnp.int32), axis=0)
      total = total + weight[:, None] * entry
    columns.append(total)
  return jnp.concatenate(columns, axis=-1)


def _call(target, function, shapes, grid, *arrays):
  """Runs a kernel of this grid; `function` defines it, `shapes` its results."""
  batch = arrays[0].shape[:-2]
  results = [
      jax.ShapeDtypeStruct(batch + shape, jnp.float32) for shape in shapes
  ]
  return kernels.call(
      "dreamjax_hash_" + target,
      lambda *arrays: tuple(function(*arrays)),
      tuple(results),
      *arrays,
      scales=np.asarray(grid.scales, np.float32),
      resolutions=np.asarray(grid.resolutions, np.int32),
      offsets=np.asarray(grid.offsets, np.int64),
      sizes=np.asarray(grid.sizes, np.int64),
      features=np.int32(grid.features),
      smoothstep=np.bool_(grid.smoothstep),
  )


def _pull(function, arrays, cotangent):
  """Cotangents of `arrays`: the VJP of a function at them."""
  return jax.vjp(function, *arrays)[1](cotangent)


def _table_shape(grid):
  return (grid.num_entries, grid.features)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _encode(table, position, grid):
  """E(table, x)."""
  (feature,) = _call(
      "encode",
      lambda table, position: (definition(table, position, grid),),
      [(position.shape[-2], grid.num_features)],
      grid,
      table,
      position,
  )
  return feature


def _encode_fwd(table, position, grid):
  return _encode(table, position, grid), (table, position)


def _encode_bwd(grid, residual, cotangent):
  table, position = residual
  return (
      _table_gradient(position, cotangent, grid),
      _position_gradient(table, position, cotangent, grid),
  )


_encode.defvjp(_encode_fwd, _encode_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _table_gradient(position, cotangent, grid):
  """A(x, g)."""

  def define(position, cotangent):
    table = jnp.zeros(position.shape[:-2] + _table_shape(grid), jnp.float32)
    encode = lambda table: definition(table, position, grid)
    return _pull(encode, (table,), cotangent)

  (table,) = _call(
      "table_gradient", define, [_table_shape(grid)], grid, position, cotangent
  )
  return table


def _table_gradient_fwd(position, cotangent, grid):
  return _table_gradient(position, cotangent, grid), (position, cotangent)


def _table_gradient_bwd(grid, residual, table):
  position, cotangent = residual
  return (
      _position_gradient(table, position, cotangent, grid),
      _encode(table, position, grid),
  )


_table_gradient.defvjp(_table_gradient_fwd, _table_gradient_bwd)


def _define_position_gradient(table, position, cotangent, grid):
  encode = lambda position: definition(table, position, grid)
  return _pull(encode, (position,), cotangent)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _position_gradient(table, position, cotangent, grid):
  """P(table, x, g)."""
  (gradient,) = _call(
      "position_gradient",
      functools.partial(_define_position_gradient, grid=grid),
      [position.shape[-2:]],
      grid,
      table,
      position,
      cotangent,
  )
  return gradient


def _position_gradient_fwd(table, position, cotangent, grid):
  gradient = _position_gradient(table, position, cotangent, grid)
  return gradient, (table, position, cotangent)


def _position_gradient_bwd(grid, residual, direction):
  return _second(*residual, direction, grid)


_position_gradient.defvjp(_position_gradient_fwd, _position_gradient_bwd)


def _second(table, position, cotangent, direction, grid):
  """d<v, P>/d(table, x, g) at a direction v."""
  arrays = (table, position, cotangent, direction)
  return tuple(
      _second_by(index, *arrays, grid) for index in range(len(_SECOND))
  )


# What _second differentiates by, and the kernels that do.
_SECOND = ("second_table", "second_position", "second_cotangent")


def _second_by(index, table, position, cotangent, direction, grid):
  """The part of `_second` with an index."""

  def define(table, position, cotangent, direction):
    arrays = (table, position, cotangent)
    return (_pull(
        lambda *arrays: _define_position_gradient(*arrays, grid)[0],
        arrays,
        direction,
    )[index],)

  arrays = (table, position, cotangent, direction)
  (result,) = _call(
      _SECOND[index], define, [arrays[index].shape[-2:]], grid, *arrays
  )
  return result


def tangent(table, position, direction, grid):
  """Derivative of the features along directions, (dE/dx) v.

  Args:
    table: as for `hash_encode`.
    position: as well.
    direction: f32[..., N, 3], v.
    grid: hash_grid.HashGrid.
  Returns:
    f32[..., N, L F]; no derivative is defined.
  """
  shape = (*position.shape[:-1], grid.num_features)
  # <v, P> is linear in the cotangent: any will do.
  any_cotangent = jnp.zeros(shape, jnp.float32)
  return _second_by(2, table, position, any_cotangent, direction, grid)


def table_gradients(position, cotangent, slope_cotangent, direction, grid):
  """Gradient of <g, E> + <G, (dE/dx) v> by the table, in one pass.

  Args:
    position: as for `hash_encode`.
    cotangent: f32[..., N, L F], g.
    slope_cotangent: f32[..., N, L F], G.
    direction: f32[..., N, 3], v.
    grid: hash_grid.HashGrid.
  Returns:
    f32[..., T, F]; no derivative is defined.
  """

  def define(position, cotangent, slope_cotangent, direction):
    table = jnp.zeros(position.shape[:-2] + _table_shape(grid), jnp.float32)
    second = _second_by(0, table, position, slope_cotangent, direction, grid)
    return (_table_gradient(position, cotangent, grid) + second,)

  (table,) = _call(
      "table_gradients", define, [_table_shape(grid)], grid,
      position, cotangent, slope_cotangent, direction,
  )
  return table
