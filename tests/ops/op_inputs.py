"""Random arguments of the operations, and what is computed of them.

The tests of an operation, and those of all operations, start from these.
`place` says where points or rays are: "inside"; on the "border" of cells,
exactly, where the finest level's scale is a power of two; "outside"; or, points
only, in the order of a "ray" through the cube, many side by side in a cell.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dreamjax.ops import composite as composite_lib
from dreamjax.ops import hash_encode as hash_encode_lib
from dreamjax.ops import hash_grid as hash_grid_lib
from dreamjax.ops import hash_mlp as hash_mlp_lib
from dreamjax.ops import march as march_lib
from dreamjax.ops import mlp as mlp_lib

PLACES = ("inside", "border", "outside", "ray")


def _normal(rng, *shape, scale=1.0):
  return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)


def hash_encode(grid, num_points, batch=(), seed=0, place="inside"):
  """(table, position, cotangent, direction) of random numbers."""
  rng = np.random.default_rng(seed)
  shape = batch + (num_points, 3)
  position = rng.uniform(size=shape)
  if place == "border":
    vertex = rng.integers(1, grid.resolutions[-1], size=shape)
    on_vertex = (vertex - 0.5) / grid.scales[-1]
    # At least one axis of a point is on a border; the others may be.
    is_on = rng.uniform(size=shape) < 0.5
    is_on[..., 0] |= ~is_on.any(axis=-1)
    position = np.where(is_on, on_vertex, position)
  elif place == "outside":
    position = rng.uniform(-0.5, 1.5, size=shape)
  elif place == "ray":
    begin, end = rng.uniform(size=(2, *batch, 1, 3))
    position = begin + np.linspace(0, 1, num_points)[:, None] * (end - begin)
  return (
      _normal(rng, *batch, grid.num_entries, grid.features),
      jnp.asarray(position, jnp.float32),
      _normal(rng, *batch, num_points, grid.num_features),
      _normal(rng, *batch, num_points, 3),
  )


def mlp(sizes, num_points, batch=(), seed=0):
  """(weights, x, cotangent, direction) of random numbers."""
  rng = np.random.default_rng(seed)
  weights = tuple(
      _normal(rng, *batch, rows, columns, scale=max(rows, 1) ** -0.5)
      for rows, columns in zip(sizes[:-1], sizes[1:])
  )
  return (
      weights,
      _normal(rng, *batch, num_points, sizes[0]),
      _normal(rng, *batch, num_points, sizes[-1]),
      _normal(rng, *batch, num_points, sizes[0]),
  )


def hash_mlp(grid, sizes, num_points, batch=(), seed=0, place="inside"):
  """(table, weights, position, cotangent, slope's cotangent)."""
  table, position, _, direction = hash_encode(
      grid, num_points, batch, seed, place
  )
  weights, _, cotangent, _ = mlp(sizes, num_points, batch, seed + 1)
  return table, weights, position, cotangent, direction


def composite(num_rays, channels=3, spare=5, batch=(), seed=0):
  """(density, value, width, offset); rays have 0 to 12 samples, some to 99.

  `spare` slots are free; as many samples find no slot if it is negative.
  """
  rng = np.random.default_rng(seed)
  counts = rng.integers(0, 13, size=batch + (num_rays,))
  counts[..., 2::7] = rng.integers(0, 100, size=counts[..., 2::7].shape)
  ends = np.cumsum(counts, axis=-1)
  offset = np.concatenate([np.zeros(batch + (1,), int), ends], axis=-1)
  slots = max(int(offset.max()) + spare, 0)
  density = rng.exponential(2, size=batch + (slots,))
  value = rng.normal(size=batch + (slots, channels))
  width = rng.uniform(0.05, 0.3, size=batch + (slots,))
  floats = [jnp.asarray(x, jnp.float32) for x in (density, value, width)]
  return *floats, jnp.asarray(np.minimum(offset, slots), jnp.int32)


def rays(num_rays, batch=(), seed=0, place="inside"):
  """(origin, direction, jitter): unit rays around the ball of radius 1.

  Some begin in it and some miss it; "outside" all miss it.
  """
  rng = np.random.default_rng(seed)
  shape = batch + (num_rays, 3)
  origin = rng.normal(size=shape)
  direction = rng.normal(size=shape) * 0.5 - origin
  direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
  jitter = rng.uniform(size=shape[:-1])
  if place == "border":
    # Along x, where the other two axes have cells' borders.
    origin = rng.integers(-1, 2, size=shape) / 2
    origin[..., 0] = -2
    direction = np.broadcast_to([1.0, 0.0, 0.0], shape)
    jitter = np.zeros(shape[:-1])
  elif place == "outside":
    origin += 4 * direction
  return [jnp.asarray(x, jnp.float32) for x in (origin, direction, jitter)]


def occupancy(share=0.4, resolution=8, batch=(), seed=0):
  """u8[..., G, G, ceil(G / 8)], of which about `share` is occupied."""
  rng = np.random.default_rng(seed)
  occupied = rng.uniform(size=batch + (resolution,) * 3) < share
  return march_lib.pack(occupied)


# What is computed, of function(parameters, x) of `hash_encode` or `mlp`.


def first(function):
  """Function: outputs and gradients of parameters and input."""

  def run(parameters, x, cotangent, direction):
    del direction
    output, pull = jax.vjp(function, parameters, x)
    return output, *pull(cotangent)

  return jax.jit(run)


def normal(function):
  """Function: outputs and the gradient of the input alone."""

  def run(parameters, x, cotangent, direction):
    del direction
    output, pull = jax.vjp(functools.partial(function, parameters), x)
    return output, *pull(cotangent)

  return jax.jit(run)


def second(function):
  """Function: the gradients of <direction, gradient of the input>."""

  def run(parameters, x, cotangent, direction):
    def slope(parameters, x, cotangent):
      inner = lambda x: jnp.vdot(cotangent, function(parameters, x))
      return jnp.vdot(direction, jax.grad(inner)(x))

    return jax.grad(slope, (0, 1, 2))(parameters, x, cotangent)

  return jax.jit(run)


# Of function(table, weights, position), one of `hash_mlp`'s.


def output(function):
  """Function: outputs, and gradients of the table and the weights."""

  def run(table, weights, position, cotangent, _):
    result, pull = jax.vjp(
        lambda t, w: function(t, w, position), table, weights
    )
    return result, *pull(cotangent)

  return jax.jit(run)


def slope(function):
  """Function: outputs, slope, and their gradients together."""

  def run(table, weights, position, *cotangents):
    results, pull = jax.vjp(
        lambda t, w: function(t, w, position), table, weights
    )
    return *results, *pull(cotangents)

  return jax.jit(run)


def render(function):
  """Function: `composite`'s results, and gradients under fixed cotangents."""

  def run(density, value, width, offset):
    results, pull = jax.vjp(
        lambda *arrays: function(*arrays, offset), density, value, width
    )
    cotangents = [
        jnp.cos(1 + jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)
        for x in results
    ]
    return *results, *pull(tuple(cotangents))

  return jax.jit(run)


def march(function, step=2 / 32, bound=1.0, max_samples=4096):
  """Function of rays and occupancy: `march`'s Samples."""
  return jax.jit(
      functools.partial(
          function, step=step, bound=bound, max_samples=max_samples
      )
  )


def assert_same_samples(actual, expected):
  """The same slots; distances equal but for a rounding."""
  for name in ("ray", "offset", "overflow", "width"):
    np.testing.assert_array_equal(
        getattr(actual, name), getattr(expected, name), err_msg=name
    )
  # They begin with a difference of lengths, which rounds as those do.
  atol = 2e-7 * np.max(expected.distance, initial=0)
  np.testing.assert_allclose(
      actual.distance, expected.distance, rtol=1e-6, atol=atol
  )


def _table_gradients(grid, *size):
  """(position, cotangent, slope's cotangent, direction)."""
  _, position, *cotangents = hash_encode(grid, *size)
  _, _, other, _ = hash_encode(grid, *size, seed=1)
  return position, cotangents[0], other, cotangents[1]


# Every operation, with and without derivatives.
GRID = hash_grid_lib.make_grid(2, 4, 8, 5, 24, smoothstep=True)
SIZES = (8, 16, 4)
COPIES = 2  # along the leading axis of all arguments

_encode = functools.partial(hash_encode_lib.hash_encode, grid=GRID)
_march = functools.partial(
    march_lib.march, step=1 / 16, bound=1.0, max_samples=300
)
# {name: (what is computed of it, the operation, arguments)}.
OPERATIONS = {
    "hash_encode": (first, _encode, hash_encode(GRID, 17, (COPIES,))),
    "hash_encode, second order": (
        second,
        _encode,
        hash_encode(GRID, 17, (COPIES,)),
    ),
    "hash_encode, both orders of the table's gradient": (
        jax.jit,
        functools.partial(hash_encode_lib.table_gradients, grid=GRID),
        _table_gradients(GRID, 17, (COPIES,)),
    ),
    "mlp": (first, mlp_lib.mlp, mlp(SIZES, 17, (COPIES,))),
    "mlp, second order": (second, mlp_lib.mlp, mlp(SIZES, 17, (COPIES,))),
    "hash_mlp": (
        output,
        functools.partial(hash_mlp_lib.hash_mlp, grid=GRID),
        hash_mlp(GRID, SIZES, 17, (COPIES,)),
    ),
    "hash_mlp_slope": (
        slope,
        functools.partial(hash_mlp_lib.hash_mlp_slope, grid=GRID),
        hash_mlp(GRID, SIZES, 17, (COPIES,)),
    ),
    "composite": (
        render,
        composite_lib.composite,
        composite(9, batch=(COPIES,)),
    ),
    "march": (
        jax.jit,
        _march,
        (*rays(9, (COPIES,)), occupancy(batch=(COPIES,))),
    ),
}
