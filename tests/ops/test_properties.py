"""Every operation on drawn shapes, attributes and places: it is its definition.

Notation: P prompts, N points, R rays, M sample slots.
"""

import functools

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import op_inputs

from dreamjax.ops import composite
from dreamjax.ops import hash_encode
from dreamjax.ops import hash_grid
from dreamjax.ops import hash_mlp
from dreamjax.ops import march
from dreamjax.ops import mlp


def _settings(examples):
  """The same examples in each run; each costs a compilation or more."""
  return hypothesis.settings(
      max_examples=examples,
      deadline=None,
      derandomize=True,
      database=None,
      # To shrink a failure would compile for minutes.
      phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
      suppress_health_check=[hypothesis.HealthCheck.too_slow],
  )


SEEDS = st.integers(0, 2**31)
# What is named twice is drawn twice as often, what is first is drawn first.
POINTS = st.sampled_from([33, 129, 33, 7, 129, 2, 1, 0])
BATCHES = st.sampled_from([(), (1,), (3,)])  # without an axis P, and with one
PLACES = st.sampled_from(op_inputs.PLACES)


@st.composite
def _grids(draw, features, max_levels):
  """Grids whose finest scale is a power of two."""
  base = draw(st.sampled_from([2, 3, 5, 9]))
  finest = [r for r in (3, 5, 9, 17, 33) if r >= base]
  return hash_grid.make_grid(
      draw(st.integers(1, max_levels)),
      draw(st.sampled_from(features)),
      draw(st.integers(3, 10)),
      base,
      draw(st.sampled_from(finest)),
      draw(st.booleans()),
  )


def _level(grid, index):
  """(grid of one level alone, slice of its entries, slice of its features)."""
  alone = grid._replace(
      scales=grid.scales[index : index + 1],
      resolutions=grid.resolutions[index : index + 1],
      offsets=(0,),
      sizes=grid.sizes[index : index + 1],
  )
  entry, feature = grid.offsets[index], index * grid.features
  return (
      alone,
      slice(entry, entry + grid.sizes[index]),
      slice(feature, feature + grid.features),
  )


def _numpy(tree):
  """The same on the host, where to index compiles nothing."""
  return jax.tree.map(np.asarray, tree)


def _both_orders(function):
  """Function: values, gradients, and gradients of the gradient."""
  first, second = op_inputs.first(function), op_inputs.second(function)
  run = jax.jit(lambda *arrays: (*first(*arrays), *second(*arrays)))
  return lambda *arrays: _numpy(run(*arrays))


@_settings(6)
@hypothesis.given(
    _grids(features=(1, 2, 4, 8), max_levels=5),
    POINTS,
    BATCHES,
    PLACES,
    SEEDS,
)
def test_hash_encoding_is_that_of_its_levels_and_each_its_definition(
    assert_close, grid, num_points, batch, place, seed
):
  run = lambda encode, grid: _both_orders(
      functools.partial(encode, grid=grid)
  )
  arrays = _numpy(
      op_inputs.hash_encode(grid, num_points, batch, seed, place)
  )
  table, position, cotangent, direction = arrays
  parts = []
  for index in range(len(grid.sizes)):
    alone, entries, features = _level(grid, index)
    part = (
        table[..., entries, :],
        position,
        cotangent[..., features],
        direction,
    )
    parts.append(run(hash_encode.hash_encode, alone)(*part))
  # To compile the definition of all levels takes many seconds.
  assert_close(parts[-1], run(hash_encode.definition, alone)(*part))

  whole = run(hash_encode.hash_encode, grid)
  results = whole(*arrays)
  for index, axis in ((0, -1), (1, -2), (3, -2), (5, -1)):
    np.testing.assert_array_equal(
        results[index], np.concatenate([p[index] for p in parts], axis=axis)
    )
  for index in (2, 4):
    assert_close([results[index]], [sum(p[index] for p in parts)])

  # The weights of a cell's corners sum to one, wherever the point is.
  flat = whole(np.ones_like(table), *arrays[1:])
  if place != "outside":
    np.testing.assert_allclose(flat[0], 1, rtol=1e-5)
  np.testing.assert_array_equal(flat[2], 0)


@_settings(12)
@hypothesis.given(
    st.lists(
        st.sampled_from([1, 2, 3, 5, 8, 16, 17, 33, 128]),
        min_size=2,
        max_size=6,
    ),
    POINTS,
    BATCHES,
    SEEDS,
)
def test_mlp_is_its_definition_and_homogeneous(
    assert_close, sizes, num_points, batch, seed
):
  weights, x, *rest = _numpy(op_inputs.mlp(sizes, num_points, batch, seed))
  x = x * (np.arange(num_points) % 3 > 0)[:, None].astype(x.dtype)
  run = _both_orders(mlp.mlp)
  results = run(weights, x, *rest)
  assert_close(results, _both_orders(mlp.definition)(weights, x, *rest))
  # These points are on every kink.
  np.testing.assert_array_equal(results[0][..., ::3, :], 0)
  np.testing.assert_array_equal(run(weights, 2 * x, *rest)[0], 2 * results[0])


def _of_parts(table, weights, position, grid, count):
  result = mlp.mlp(weights, hash_encode.hash_encode(table, position, grid))
  used = np.arange(position.shape[-2]) < count[..., None]
  return jnp.where(used[..., None], result, 0.0)


def _slope_of_parts(table, weights, position, grid, count):
  run = lambda x: _of_parts(table, weights, x, grid, count)
  result, pull = jax.vjp(run, position)
  return result, pull(jnp.zeros_like(result).at[..., 0].set(1.0))[0]


@_settings(8)
@hypothesis.given(
    _grids(features=(4, 8), max_levels=4),
    st.lists(st.sampled_from([1, 3, 8, 16, 33]), min_size=1, max_size=5),
    POINTS,
    BATCHES,
    PLACES,
    SEEDS,
)
def test_hash_mlp_is_made_of_its_parts_and_one_level_is_its_definition(
    assert_close, grid, widths, num_points, batch, place, seed
):
  arrays = op_inputs.hash_mlp(
      grid, (grid.num_features, *widths), num_points, batch, seed, place
  )
  # From none to more than there are.
  count = np.random.default_rng(seed).integers(-1, num_points + 3, batch, "i4")

  def run(compute, function):
    bound = functools.partial(function, grid=grid, count=count)
    return compute(bound)(*arrays)

  plain = run(op_inputs.output, hash_mlp.hash_mlp)
  assert_close(plain, run(op_inputs.output, _of_parts), 2e-5)
  with_slope = run(op_inputs.slope, hash_mlp.hash_mlp_slope)
  np.testing.assert_array_equal(with_slope[0], plain[0])
  one = len(grid.sizes) == 1
  expected = hash_mlp.definition_slope if one else _slope_of_parts
  assert_close(with_slope, run(op_inputs.slope, expected), 2e-5)


@_settings(6)
@hypothesis.given(
    st.sampled_from([17, 33, 17, 7, 2, 1, 0]),
    st.integers(0, 8),
    st.sampled_from([5, -9, 1, -40, 0]),
    BATCHES,
    st.sampled_from([1.0, 10.0, 1e-6, 0.0]),
    SEEDS,
)
def test_composite_is_its_definition_and_weighs_between_zero_and_one(
    assert_close, num_rays, channels, spare, batch, thickness, seed
):
  density, *rest = _numpy(
      op_inputs.composite(num_rays, channels, spare, batch, seed)
  )
  arrays = (density * np.float32(thickness), *rest)
  results = op_inputs.render(composite.composite)(*arrays)
  assert_close(results, op_inputs.render(composite.definition)(*arrays))
  _, opacity, weight = _numpy(results[:3])
  for numbers in (opacity, weight):
    assert ((numbers >= 0) & (numbers <= 1 + 1e-6)).all()
  offset = arrays[3]
  for prompt in np.ndindex(batch):
    np.testing.assert_array_equal(weight[prompt][offset[prompt][-1] :], 0)
    for ray, (begin, end) in enumerate(
        zip(offset[prompt][:-1], offset[prompt][1:])
    ):
      np.testing.assert_allclose(
          weight[prompt][begin:end].sum(), opacity[prompt][ray], atol=1e-6
      )


@_settings(12)
@hypothesis.given(
    POINTS,
    st.sampled_from([8, 16, 3, 2, 1]),
    st.sampled_from([0.4, 1.0, 0.4, 0.0]),
    st.sampled_from([1 / 4, 1 / 16, 3 / 32]),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([0.5, 2.0, 0.5, 1.0, 0.0]),
    BATCHES,
    PLACES,
    SEEDS,
)
def test_march_is_its_definition_and_fills_its_slots_in_order(
    num_rays, resolution, share, step, bound, budget, batch, place, seed
):
  arrays = _numpy((
      *op_inputs.rays(num_rays, batch, seed, place),
      op_inputs.occupancy(share, resolution, batch, seed),
  ))

  def run(function, slots):
    return _numpy(op_inputs.march(function, step, bound, slots)(*arrays))

  longest = np.ceil(2 * bound / step)
  ample = run(march.march, int(num_rays * longest))
  wanted = ample.offset[..., -1]
  np.testing.assert_array_equal(ample.overflow, 0)
  slots = int(budget * wanted.max())
  samples = run(march.march, slots)
  op_inputs.assert_same_samples(samples, run(march.definition, slots))

  np.testing.assert_array_equal(
      samples.overflow, np.maximum(wanted - slots, 0)
  )
  np.testing.assert_array_equal(
      samples.offset, np.minimum(ample.offset, slots)
  )
  counts = np.diff(ample.offset)
  assert (counts >= 0).all() and (counts <= longest).all()
  if share == 0:
    np.testing.assert_array_equal(wanted, 0)
  for prompt in np.ndindex(batch):
    total = int(samples.offset[prompt][-1])
    np.testing.assert_array_equal(samples.distance[prompt][total:], 0)
    distance = samples.distance[prompt][:total]
    ray = samples.ray[prompt][:total]
    np.testing.assert_array_equal(
        np.bincount(ray, minlength=num_rays), np.diff(samples.offset[prompt])
    )
    same = np.diff(ray) == 0
    assert (np.diff(ray) >= 0).all()
    assert (np.diff(distance)[same] > 0.99 * step).all()
    # Inside the ball.
    at = arrays[0][prompt][ray] + distance[:, None] * arrays[1][prompt][ray]
    assert (np.linalg.norm(at, axis=-1) <= bound * (1 + 1e-5)).all()
