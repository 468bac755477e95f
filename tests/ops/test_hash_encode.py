"""Tests of the hash encoding: closed forms, brute force, kernel = definition."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import op_inputs
import pytest

from dreamjax.ops import hash_encode as he
from dreamjax.ops import hash_grid

# A dense level of 5 vertices per axis and a hashed one.
GRID = hash_grid.make_grid(2, 2, 7, 5, 24)
SMOOTH = GRID._replace(smoothstep=True)


def _first(encode, grid):
  return op_inputs.first(functools.partial(encode, grid=grid))


def _second(encode, grid):
  return op_inputs.second(functools.partial(encode, grid=grid))


def _brute_force(table, position, grid):
  """The encoding of one point in float64, a loop per corner."""
  columns = []
  for scale, resolution, offset, size in zip(
      grid.scales, grid.resolutions, grid.offsets, grid.sizes
  ):
    place = np.asarray(position, np.float64) * scale + 0.5
    cell = np.floor(place).astype(np.int64)
    f = place - cell
    f = f * f * (3 - 2 * f) if grid.smoothstep else f
    total = np.zeros(grid.features)
    for corner in itertools.product((0, 1), repeat=3):
      x, y, z = (int(c) for c in cell + corner)
      index = x + y * resolution + z * resolution**2
      if resolution**3 > size:
        index = x ^ (y * 2654435761 % 2**32) ^ (z * 805459861 % 2**32)
      weight = np.prod(np.where(corner, f, 1 - f))
      total += weight * np.asarray(table, np.float64)[offset + index % size]
    columns.append(total)
  return np.concatenate(columns)


def _differences(function, x, step=1e-5):
  """Central differences of a float64 function, one row per input."""
  return np.stack([
      (function(x + step * unit) - function(x - step * unit)) / (2 * step)
      for unit in np.eye(x.size)
  ])


def test_levels_grow_geometrically_between_the_two_resolutions():
  grid = hash_grid.make_grid(16, 2, 19, 16, 2048)
  assert grid.resolutions[0] == 16 and grid.resolutions[-1] == 2048
  ratios = np.diff(np.log2(np.array(grid.scales) + 1))
  np.testing.assert_allclose(ratios, 7 / 15, rtol=1e-5)
  # As computed for this grid from Instant-NGP's equations: 5 dense levels.
  assert grid.num_entries == 6098120
  assert sum(size < 2**19 for size in grid.sizes) == 5


def test_linear_vertices_give_a_linear_function():
  grid = hash_grid.make_grid(1, 1, 12, 16, 16)
  x, y, z = np.meshgrid(*[np.arange(16.0)] * 3, indexing="ij")
  value = 3 * x - 2 * y + z + 1
  table = jnp.asarray(value.transpose(2, 1, 0).reshape(-1, 1), jnp.float32)
  # Inside: the last half cell continues at the other side of the grid.
  position = np.random.default_rng(0).uniform(0, 14.4 / 15, (50, 3))
  feature, _, slope = _first(he.hash_encode, grid)(
      table, jnp.asarray(position, jnp.float32), jnp.ones((50, 1)), None
  )
  place = position * 15 + 0.5
  np.testing.assert_allclose(
      feature[:, 0], place @ [3, -2, 1] + 1, rtol=1e-5, atol=1e-4
  )
  np.testing.assert_allclose(slope, np.tile([45.0, -30.0, 15.0], (50, 1)),
                             rtol=1e-4)


def test_smoothstep_is_flat_at_vertices_and_steep_between():
  grid = hash_grid.make_grid(1, 1, 12, 16, 16, smoothstep=True)
  table = jnp.arange(16.0**3)[:, None] % 16  # the vertex's x
  at = lambda x: jnp.array([[(x - 0.5) / 15, 0.5, 0.5]], jnp.float32)
  run = _first(he.hash_encode, grid)
  one = jnp.ones((1, 1))
  feature, _, slope = run(table, at(4.0), one, None)
  np.testing.assert_allclose(feature, 4, rtol=1e-5)
  np.testing.assert_allclose(slope[0, 0], 0, atol=1e-3)
  feature, _, slope = run(table, at(4.5), one, None)
  np.testing.assert_allclose(feature, 4.5, rtol=1e-5)
  np.testing.assert_allclose(slope[0, 0], 1.5 * 15, rtol=1e-5)


@pytest.mark.parametrize("grid", [GRID, SMOOTH])
def test_features_equal_a_brute_force_in_double_precision(grid, assert_close):
  table, position, cotangent, direction = op_inputs.hash_encode(grid, 20)
  expected = [_brute_force(table, x, grid) for x in position]
  for encode in (he.hash_encode, he.definition):
    feature = _first(encode, grid)(table, position, cotangent, direction)[0]
    assert_close([feature], [np.stack(expected)])


@pytest.mark.parametrize("grid", [GRID, SMOOTH])
def test_derivatives_equal_finite_differences_of_the_brute_force(
    grid, assert_close
):
  table, position, cotangent, direction = op_inputs.hash_encode(grid, 4)
  first = _first(he.hash_encode, grid)(table, position, cotangent, direction)
  second = _second(he.hash_encode, grid)(table, position, cotangent, direction)
  for i in range(4):
    x = np.asarray(position[i], np.float64)
    g = np.asarray(cotangent[i], np.float64)
    v = np.asarray(direction[i], np.float64)
    encode = lambda x: _brute_force(table, x, grid)
    jacobian = _differences(encode, x)  # [3, L F]
    assert_close([first[2][i]], [jacobian @ g], 1e-4)
    assert_close([second[2][i]], [v @ jacobian], 1e-4)
    slope = lambda x: v @ _differences(encode, x) @ g
    hessian = _differences(slope, x, 1e-4)
    # Second differences of a function of slopes near 1e2 are good to 1e-3.
    assert_close([second[1][i]], [hessian], 2e-3)


@pytest.mark.parametrize("order", [_first, _second])
@pytest.mark.parametrize(
    "features, smoothstep", [(1, True), (2, False), (4, True), (8, False)]
)
def test_kernel_equals_definition(order, features, smoothstep, assert_close):
  grid = GRID._replace(features=features, smoothstep=smoothstep)
  arrays = op_inputs.hash_encode(grid, 300, seed=features, place="ray")
  assert_close(
      order(he.hash_encode, grid)(*arrays), order(he.definition, grid)(*arrays)
  )


@pytest.mark.parametrize("order", [_first, _second])
def test_every_number_of_points_works(order):
  arrays = op_inputs.hash_encode(SMOOTH, 300)
  table, rows = arrays[0], arrays[1:]
  # A point's features and gradients do not depend on the other points.
  whole = order(he.hash_encode, SMOOTH)(*arrays)
  for n in (0, 1, 127, 128, 129, 255, 256, 257):
    part = order(he.hash_encode, SMOOTH)(table, *(row[:n] for row in rows))
    for result, reference in zip(part, whole):
      if result.shape != table.shape:
        np.testing.assert_array_equal(result, reference[:n])


def test_no_points_leave_no_gradient():
  arrays = op_inputs.hash_encode(SMOOTH, 0)
  np.testing.assert_array_equal(_first(he.hash_encode, SMOOTH)(*arrays)[1], 0)


def test_more_points_than_one_chunk_equal_the_definition(assert_close):
  arrays = op_inputs.hash_encode(GRID, 9000)
  assert_close(
      _first(he.hash_encode, GRID)(*arrays),
      _first(he.definition, GRID)(*arrays),
      2e-5,  # 9000 x 8 additions into 100 entries
  )


@pytest.mark.parametrize("order", [_first, _second])
def test_batch_axes_and_vmap_equal_one_call_each(order, assert_close):
  arrays = op_inputs.hash_encode(SMOOTH, 40, batch=(2, 3))
  run = order(he.hash_encode, SMOOTH)
  each = [
      [run(*(array[i, j] for array in arrays)) for j in range(3)]
      for i in range(2)
  ]
  stack = lambda *parts: jnp.stack(parts)
  expected = jax.tree.map(stack, *(jax.tree.map(stack, *row) for row in each))
  assert_close(jax.vmap(jax.vmap(run))(*arrays), expected)
  assert_close(jax.vmap(run)(*arrays), expected)
  if order is _first:
    assert_close(run(*arrays), expected)


def test_a_table_that_a_vmap_shares_gets_the_sum_of_gradients(assert_close):
  table, position, cotangent, _ = op_inputs.hash_encode(GRID, 30, batch=(3,))

  def loss(encode, table):
    shared = jax.vmap(lambda x: encode(table, x, GRID))
    return jnp.vdot(cotangent, shared(position))

  gradients = [
      jax.jit(jax.grad(functools.partial(loss, encode)))(table[0])
      for encode in (he.hash_encode, he.definition)
  ]
  assert_close(gradients[:1], gradients[1:])


def test_gradients_accumulate_in_a_scan_with_a_donated_table(assert_close):
  table, position, cotangent, _ = op_inputs.hash_encode(GRID, 64)

  @functools.partial(jax.jit, donate_argnums=0)
  def descend(table):
    def step(table, _):
      loss = lambda t: jnp.vdot(cotangent, he.hash_encode(t, position, GRID))
      return table - 0.1 * jax.grad(loss)(table), None

    return jax.lax.scan(step, table, length=5)[0]

  # The loss is linear in the table: five steps are one of five times the size.
  gradient = _first(he.definition, GRID)(table, position, cotangent, None)[1]
  expected = table - 0.5 * gradient
  assert_close([descend(table)], [expected])


def test_points_outside_and_nan_stay_inside_the_table(assert_close):
  table, position, cotangent, direction = op_inputs.hash_encode(GRID, 4)
  position = position.at[0].set(jnp.nan).at[1].set(-3e9).at[2].set(jnp.inf)
  feature, gradient, _ = _first(he.hash_encode, GRID)(
      table, position, cotangent, direction
  )
  assert np.isnan(feature[0]).all()
  assert np.isfinite(feature[3]).all()
  assert gradient.shape == table.shape
  far = jnp.full((1, 3), 1.5)
  assert_close(
      [he.hash_encode(table, far, GRID)], [he.definition(table, far, GRID)]
  )


def test_third_derivatives_are_refused():
  table, position, cotangent, direction = op_inputs.hash_encode(SMOOTH, 2)
  second = _second(he.hash_encode, SMOOTH)
  loss = lambda x: jnp.sum(second(table, x, cotangent, direction)[1])
  with pytest.raises(Exception, match="(?i)differentiat"):
    jax.grad(loss)(position)


def _case(table=(GRID.num_entries, 2), position=(5, 3), dtypes=("f4", "f4")):
  return np.zeros(table, dtypes[0]), np.zeros(position, dtypes[1])


@pytest.mark.parametrize(
    "arrays, error, message",
    [
        (_case(dtypes=("f8", "f4")), TypeError, "table is float64"),
        (_case(dtypes=("f4", "i4")), TypeError, "position is int32"),
        (_case(dtypes=("f2", "f4")), TypeError, "want float32; cast"),
        (([[0.0]], np.zeros((5, 3), "f4")), TypeError, "table is of type list"),
        ((None, np.zeros((5, 3), "f4")), TypeError, "NoneType"),
        (_case(table=(7, 2)), ValueError, r"table is float32\[7, 2\], want"),
        (_case(table=(GRID.num_entries, 4)), ValueError, "table is"),
        (_case(table=(GRID.num_entries,)), ValueError, "table is"),
        (_case(position=(5, 2)), ValueError, r"position is float32\[5, 2\]"),
        (_case(position=(3,)), ValueError, r"want float32\[N, 3\]"),
        (_case(position=(2, 5, 3)), ValueError, "position is"),
        (_case(table=(2, GRID.num_entries, 2)), ValueError, "position is"),
    ],
)
def test_wrong_arrays_are_named(arrays, error, message):
  with pytest.raises(error, match="hash_encode: .*" + message):
    he.hash_encode(*arrays, GRID)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 2, 8, 3, 24), "levels is 0"),
        ((33, 2, 8, 3, 24), "levels is 33"),
        ((4, 3, 8, 3, 24), "features is 3"),
        ((4, 2, 29, 3, 24), "log2_table_size is 29"),
        ((4, 2, 8, 1, 24), "base_resolution is 1"),
        ((4, 2, 8, 32, 24), "max_resolution is 24"),
        ((32, 8, 28, 2048, 4096), "at most 2147483647"),
    ],
)
def test_impossible_grids_are_refused(arguments, message):
  with pytest.raises(ValueError, match="make_grid: .*" + message):
    hash_grid.make_grid(*arguments)


def test_levels_that_kernels_cannot_read_in_words_are_refused():
  first, second = GRID.sizes
  grid = GRID._replace(sizes=(first + 4, second), offsets=(0, first + 4))
  arrays = _case(table=(grid.num_entries, 2))
  with pytest.raises(ValueError, match="hash_encode: .* make_grid makes one"):
    he.hash_encode(*arrays, grid)
