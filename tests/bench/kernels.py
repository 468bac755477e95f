"""Compiled kernels against the same operations in pure JAX.

Command:  python tests/bench/kernels.py
Result:   one JSON line per case on stdout; with --table rows of Markdown.

Notation: N points or samples, R rays of S samples, K candidates of a ray.

Each case runs the kernel and one or two formulations in jax.numpy that give
the same arrays: the operation's definition, and the natural one that a reader
of the paper would write. All are compiled, checked against each other, run
warm, then timed in turn, so that a busy machine slows all alike, each right
after a run of its own, so that none pays for what another left in the caches.
`ratio` is the median of the fastest pure JAX over the kernel's median. `floor`
is the time that the device's peak memory would take for each argument and
result once, or its peak arithmetic for the products of a network, if that is
longer; `reached` is its share of the kernel's median.
"""

import functools

from absl import app
from absl import flags
import jax
from jax import random
import jax.numpy as jnp
import measure
import numpy as np

from dreamjax import allocator
from dreamjax import config_io
from dreamjax import fields
from dreamjax import roofline
from dreamjax import state as state_lib
from dreamjax import step
from dreamjax import views
from dreamjax.ops import composite
from dreamjax.ops import hash_encode
from dreamjax.ops import hash_grid
from dreamjax.ops import hash_mlp
from dreamjax.ops import kernels
from dreamjax.ops import march
from dreamjax.ops import mlp

_LOG2_POINTS = flags.DEFINE_integer("log2_points", 17, "log2 of N.")

# Levels, features, log2 of entries, cells of the coarsest and of the finest.
_SMALL = (5, 4, 18, 8, 64)
_LARGE = (16, 2, 19, 16, 2048)
_SAMPLES_PER_RAY = 32
_CANDIDATES = 128
_VIEWS = 4


def natural_encode(table, position, grid):
  """The hash encoding with one gather of all levels and corners, [N, L, 8]."""
  column = lambda values, dtype: jnp.asarray(values, dtype)[:, None]
  scale = column(grid.scales, jnp.float32)  # [L, 1]
  resolution = column(grid.resolutions, jnp.uint32)
  size = column(grid.sizes, jnp.uint32)
  dense = column(
      [r**3 <= s for r, s in zip(grid.resolutions, grid.sizes)], bool
  )
  place = position[:, None] * scale + jnp.float32(0.5)  # [N, L, 3]
  cell = jnp.clip(
      jnp.floor(place), 0, resolution.astype(jnp.float32) - jnp.float32(1)
  )
  fraction = place - cell
  if grid.smoothstep:
    fraction = fraction * fraction * (3 - 2 * fraction)
  corner = jnp.asarray(np.indices((2, 2, 2)).reshape(3, 8).T, jnp.uint32)
  weight = jnp.prod(
      jnp.where(corner == 1, fraction[:, :, None], 1 - fraction[:, :, None]),
      axis=-1,
  )  # [N, L, 8]
  vertex = cell.astype(jnp.uint32)[:, :, None] + corner  # [N, L, 8, 3]
  x, y, z = jnp.moveaxis(vertex, -1, 0)
  flat = x + resolution * (y + resolution * z)
  flat = jnp.where(flat < size, flat, flat - size)
  hashed = x ^ y * jnp.uint32(2654435761) ^ z * jnp.uint32(805459861)
  index = jnp.where(dense, flat, hashed & (size - jnp.uint32(1)))
  index = index.astype(jnp.int32) + column(grid.offsets, jnp.int32)
  feature = jnp.sum(weight[..., None] * table[index], axis=2)
  return feature.reshape(position.shape[0], grid.num_features)


def dense_composite(density, value, width, offset):
  """Compositing of rays that all own S slots: a sum along an axis."""
  num_rays = offset.shape[0] - 1
  depth = (density * width).reshape(num_rays, -1)
  before = jnp.cumsum(depth, axis=1) - depth
  weight = jnp.exp(-before) * -jnp.expm1(-depth)
  value = value.reshape(*weight.shape, -1)
  return (
      jnp.sum(weight[..., None] * value, axis=1),
      jnp.sum(weight, axis=1),
      weight.ravel(),
  )


def _random_points(rng, num_points):
  """f32[N, 3], random in the unit cube: the hardest order for a cache."""
  return jnp.asarray(rng.uniform(size=(num_points, 3)), jnp.float32)


def _points_of_rays(rng, num_points):
  """f32[N, 3], S in a row on each ray of an image, row by row: as views ask."""
  num_rays = num_points // _SAMPLES_PER_RAY
  side = np.sqrt(num_rays)
  ray = np.arange(num_rays)[:, None]
  depth = np.arange(_SAMPLES_PER_RAY) + rng.uniform(size=(num_rays, 1))
  depth = depth / _SAMPLES_PER_RAY
  spread = (2 + depth) / 3  # The eye is two widths before the cube.
  column, row = ray % side / side, ray // side / side
  points = [0.5 + (x - 0.5) * spread for x in (column, row)] + [depth]
  return jnp.asarray(np.stack(points, -1).reshape(-1, 3), jnp.float32)


def _hash_cases(size, layout, points, num_points):
  """{name: (arrays, {who: function})} of the hash encoding in one layout.

  Args:
    size: name of the layout.
    layout: arguments of hash_grid.make_grid.
    points: function of (rng, N), the positions.
    num_points: N.
  """
  grid = hash_grid.make_grid(*layout)
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  table = normal(grid.num_entries, grid.features)
  position = points(rng, num_points)
  cotangent = normal(num_points, grid.num_features)
  direction = normal(num_points, 3)

  def forward(encode, table, position):
    return encode(table, position, grid)

  def gradient(encode, argument, table, position, cotangent):
    inner = lambda *arrays: jnp.vdot(cotangent, encode(*arrays, grid))
    return jax.grad(inner, argument)(table, position)

  def second(encode, table, position, cotangent, direction):
    def slope(table, cotangent):
      inner = lambda x: jnp.vdot(cotangent, encode(table, x, grid))
      return jnp.vdot(direction, jax.grad(inner)(position))

    return jax.grad(slope, (0, 1))(table, cotangent)

  def all_of(function, *arguments):
    return {
        "kernel": functools.partial(
            function, hash_encode.hash_encode, *arguments
        ),
        "definition": functools.partial(
            function, hash_encode.definition, *arguments
        ),
        "natural": functools.partial(function, natural_encode, *arguments),
    }

  first = (table, position, cotangent)
  return {
      f"{size}, features": ((table, position), all_of(forward)),
      f"{size}, gradient of table": (first, all_of(gradient, 0)),
      f"{size}, gradient of position": (first, all_of(gradient, 1)),
      f"{size}, gradients of slope": ((*first, direction), all_of(second)),
  }


def _mlp_cases(sizes, num_points):
  """{name: (arrays, {who: function}, flops)}; sizes from C to O."""
  rng = np.random.default_rng(3)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  weights = [
      normal(rows, columns) / np.float32(np.sqrt(rows))
      for rows, columns in zip(sizes[:-1], sizes[1:])
  ]
  x, cotangent = normal(num_points, sizes[0]), normal(num_points, sizes[-1])
  direction = normal(num_points, sizes[0])

  def gradient(network, weights, x, cotangent):
    output, pull = jax.vjp(network, weights, x)
    return output, pull(cotangent)

  def second(network, weights, x, cotangent, direction):
    def slope(weights, cotangent):
      inner = lambda x: jnp.vdot(cotangent, network(weights, x))
      return jnp.vdot(direction, jax.grad(inner)(x))

    return jax.grad(slope, (0, 1))(weights, cotangent)

  def all_of(function):
    return {
        "kernel": functools.partial(function, mlp.mlp),
        "definition": functools.partial(function, mlp.definition),
    }

  name = "mlp " + "-".join(map(str, sizes))
  output = lambda network, *arrays: network(*arrays)
  first = (weights, x, cotangent)
  once = 2 * num_points * sum(weight.size for weight in weights)
  # Forward, and the gradients of inputs and weights; or forward, back, the
  # tangent forward, and the gradient of weights.
  return {
      f"{name}, output": ((weights, x), all_of(output), once),
      f"{name}, with gradients": (first, all_of(gradient), 3 * once),
      f"{name}, gradients of slope": (
          (*first, direction), all_of(second), 4 * once
      ),
  }


def _field_cases(size, layout, num_points):
  """{name: (arrays, {who: function})} of encoding, network and slope."""
  grid = hash_grid.make_grid(*layout, smoothstep=True)
  sizes = (grid.num_features, 32, 4)
  rng = np.random.default_rng(4)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  weights = [
      normal(rows, columns) / np.float32(np.sqrt(rows))
      for rows, columns in zip(sizes[:-1], sizes[1:])
  ]
  table = normal(grid.num_entries, grid.features)
  position = jnp.asarray(rng.uniform(size=(num_points, 3)), jnp.float32)
  cotangents = normal(num_points, 4), normal(num_points, 3)

  def output(field, table, weights, position):
    return field(table, weights, position, grid)

  def gradient(field, table, weights, position, cotangents):
    results, pull = jax.vjp(
        lambda *params: field(*params, position, grid), table, weights
    )
    return results, pull(cotangents)

  def all_of(function):
    return {
        "kernel": functools.partial(function, hash_mlp.hash_mlp_slope),
        "definition": functools.partial(function, hash_mlp.definition_slope),
    }

  arrays = table, weights, position
  name = f"{size} and mlp {'-'.join(map(str, sizes))}"
  return {
      f"{name}, output and slope": (arrays, all_of(output)),
      f"{name}, with gradients": ((*arrays, cotangents), all_of(gradient)),
  }


def _march_cases(num_points):
  """Rays towards a ball, through grids of which a share is occupied."""
  num_rays = num_points // _SAMPLES_PER_RAY
  rng = np.random.default_rng(1)
  direction = rng.normal(size=(num_rays, 3))
  direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
  shift = rng.uniform(-0.5, 0.5, (num_rays, 3))
  rays = [
      jnp.asarray(array, jnp.float32)
      for array in (shift - 3 * direction, direction, rng.random(num_rays))
  ]
  run = lambda function: functools.partial(
      function, step=2 / _CANDIDATES, bound=1.0, max_samples=num_points
  )
  cases = {}
  for percent in (5, 20, 100):
    # A ball in the middle: occupied cells are neighbours, as in a scene.
    axis = (np.arange(64) + 0.5) / 32 - 1
    radius = np.sqrt(sum(x**2 for x in np.meshgrid(axis, axis, axis)))
    occupancy = radius <= np.quantile(radius, percent / 100)
    cases[f"march, {percent}% occupied"] = (
        (*rays, march.pack(occupancy)),
        {"kernel": run(march.march), "definition": run(march.definition)},
    )
  return cases


def _composite_cases(num_points):
  """Rays that all have S samples, which is where a dense array fits best."""
  rng = np.random.default_rng(2)
  arrays = (
      jnp.asarray(rng.exponential(size=num_points), jnp.float32),
      jnp.asarray(rng.uniform(size=(num_points, 3)), jnp.float32),
      jnp.full((num_points,), 2 / _SAMPLES_PER_RAY, jnp.float32),
      jnp.arange(0, num_points + 1, _SAMPLES_PER_RAY, dtype=jnp.int32),
  )

  def gradient(function, density, value, width, offset):
    def total(density, value):
      color, opacity, _ = function(density, value, width, offset)
      return jnp.sum(color**2) + jnp.sum(opacity**2)

    return jax.grad(total, (0, 1))(density, value)

  functions = {
      "kernel": composite.composite,
      "definition": composite.definition,
      "natural": dense_composite,
  }
  return {
      "composite": (arrays, functions),
      "composite with gradients": (
          arrays,
          {
              who: functools.partial(gradient, function)
              for who, function in functions.items()
          },
      ),
  }


def _render_cases(num_points):
  """Views of the default recipe, lit, and the gradient of their colours."""
  del num_points
  config = config_io.load("toybox")
  indices = jnp.arange(_VIEWS, dtype=jnp.int32)
  state = state_lib.init(config, random.key(0))
  field = fields.make(config.field, config.render.bound)
  drawn = views.draw(random.key(1), config, indices, 1.0)
  progress = jnp.float32(0.5)  # All levels are seen, and views are lit.
  bits = jax.jit(
      lambda state: step.look_around(
          random.key(2), config, state.params, state.occupancy, progress
      ).bits
  )(state)
  cotangent = jnp.asarray(
      np.random.default_rng(5).normal(size=drawn.jitter.shape + (3,)),
      jnp.float32,
  )

  def render(params, drawn, bits, cotangent):
    def look(params):
      images, penalty, _ = views.look(
          config, field, params, drawn, bits, progress, True
      )
      return images.color, penalty

    results, pull = jax.vjp(look, params)
    return results, pull((cotangent, jnp.float32(1.0)))

  def define(*arrays):
    with kernels.off():
      return render(*arrays)

  arrays = (state.params, drawn, bits, cotangent)
  return {
      "render, forward and backward": (
          arrays, {"kernel": render, "definition": define}
      ),
  }


def _prepare(peak, arrays, functions, flops=0):
  """`measure.Case.make`'s results; `flops` of networks' products."""
  results = jax.eval_shape(functions["kernel"], *arrays)
  leaves = jax.tree.leaves((arrays, results))
  moved = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
  floor = roofline.floor(flops, moved, peak)
  return measure.compiled(arrays, functions), floor


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"{argv[1:]} is not a flag.")
  allocator.keep_freed_memory(large=True)
  num_points = 2**_LOG2_POINTS.value
  points = {"points": num_points}
  makers = (
      (
          functools.partial(
              _hash_cases, "small grid", _SMALL, _random_points
          ),
          points,
      ),
      (
          functools.partial(
              _hash_cases, "large grid", _LARGE, _random_points
          ),
          points,
      ),
      (
          functools.partial(
              _hash_cases, "large grid along rays", _LARGE, _points_of_rays
          ),
          points,
      ),
      (functools.partial(_mlp_cases, (20, 32, 4)), points),
      (functools.partial(_mlp_cases, (32, 64, 64, 4)), points),
      (functools.partial(_field_cases, "small grid", _SMALL), points),
      (_march_cases, points),
      (_composite_cases, points),
      (_render_cases, {"views": _VIEWS}),
  )
  peak = roofline.measure(jnp.float32)
  # One maker at a time: the arrays of the others need not be in memory.
  cases = (
      measure.Case(
          name,
          functools.partial(_prepare, peak, *case),
          units,
      )
      for make, units in makers
      for name, case in make(num_points).items()
  )
  measure.run(cases, {
      "case": "case",
      "kernel": "value",
      "definition": "definition",
      "natural": "natural",
      "ratio": "ratio",
      "reached": "reached",
      "error": "error",
  })


if __name__ == "__main__":
  app.run(main)
