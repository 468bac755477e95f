"""Tests of encoding and network in one pass: it equals its parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import op_inputs
import pytest

from dreamjax.ops import hash_grid
from dreamjax.ops import hash_mlp as hm
from dreamjax.ops import kernels
from dreamjax.ops import mlp

# A dense level and a hashed one.
GRID = hash_grid.make_grid(2, 4, 8, 5, 24, smoothstep=True)
SIZES = (8, 16, 4)


def _arrays(grid=GRID, sizes=SIZES, num_points=200, batch=()):
  return op_inputs.hash_mlp(grid, sizes, num_points, batch)


def _output(name, grid=GRID, count=None):
  functions = {"kernel": hm.hash_mlp, "definition": hm.definition}
  run = functools.partial(functions[name], grid=grid, count=count)
  return op_inputs.output(run)


def _slope(name, grid=GRID, count=None):
  functions = {
      "kernel": hm.hash_mlp_slope,
      "definition": hm.definition_slope,
  }
  run = functools.partial(functions[name], grid=grid, count=count)
  return op_inputs.slope(run)


both = pytest.mark.parametrize("order", [_output, _slope])


@both
@pytest.mark.parametrize(
    "features, smoothstep, hidden",
    [
        (4, True, (32,)),
        (4, False, (16, 9)),
        (4, True, ()),
        (8, True, (8, 8, 8, 8)),
        (2, True, (16,)),
    ],
)
def test_it_equals_the_definition(
    order, features, smoothstep, hidden, assert_close
):
  grid = GRID._replace(features=features, smoothstep=smoothstep)
  arrays = _arrays(grid, (2 * features, *hidden, 4))
  assert_close(order("kernel", grid)(*arrays),
                order("definition", grid)(*arrays))


@both
@pytest.mark.parametrize("features", [4, 2], ids=["one pass", "the parts"])
def test_points_not_in_use_give_nothing_and_get_nothing(
    order, features, assert_close
):
  grid = GRID._replace(features=features)
  count = jnp.array([-1, 150, 500], jnp.int32)
  arrays = _arrays(grid, (2 * features, 16, 4), batch=(3,))
  *others, v = arrays
  results = order("kernel", grid, count)(*others, v.at[1, 150:].set(jnp.nan))
  assert_close(results, order("definition", grid, count)(*arrays))
  for result in results[:-2]:
    assert (result[0] == 0).all() and (result[1, 150:] == 0).all()
    assert (result[1, :150] != 0).any() and (result[2, 199] != 0).all()
  assert (results[-2][0] == 0).all()


def test_derivatives_equal_finite_differences_in_double_precision():
  arrays = _arrays(num_points=5)
  _, slope, of_table, of_weights = _slope("kernel")(*arrays)
  with jax.enable_x64(True):
    table, weights, position, g, v = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float64), arrays
    )
    moves = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)]) * 1e-6

    @jax.jit
    def run(params):
      """Loss and slope, the latter by central differences."""
      at = jax.lax.map(
          lambda move: _exact(*params, position + move), jnp.asarray(moves)
      )
      slope = (at[1:4, :, 0] - at[4:, :, 0]).T / 2e-6
      return jnp.vdot(g, at[0]) + jnp.vdot(v, slope), slope

    params = table, weights
    np.testing.assert_allclose(slope, run(params)[1], rtol=1e-4, atol=1e-3)
    rng = np.random.default_rng(3)
    for _ in range(4):
      way = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
      ahead, behind = (
          run(jax.tree.map(lambda x, d, s=s: x + s * d, params, way))[0]
          for s in (1e-5, -1e-5)
      )
      pairs = zip(
          jax.tree.leaves((of_table, of_weights)), jax.tree.leaves(way)
      )
      found = sum(np.vdot(np.asarray(a, np.float64), b) for a, b in pairs)
      # Differences of differences are good to 1e-4.
      np.testing.assert_allclose(found, (ahead - behind) / 2e-5, rtol=3e-4)


def _exact(table, weights, position):
  """Outputs in float64; cells are those of float32 definitions."""
  columns = []
  for scale, resolution, offset, size in zip(
      GRID.scales, GRID.resolutions, GRID.offsets, GRID.sizes
  ):
    place = position * scale + 0.5
    cell = jnp.floor(place)
    f = place - cell
    f = f * f * (3 - 2 * f)
    total = 0.0
    for corner in range(8):
      bits = np.array([corner >> axis & 1 for axis in range(3)])
      x, y, z = jnp.moveaxis(cell.astype(jnp.int64) + bits, -1, 0)
      index = x + resolution * (y + resolution * z)
      if resolution**3 > size:
        index = x ^ (y * 2654435761 % 2**32) ^ (z * 805459861 % 2**32)
      weight = jnp.prod(jnp.where(bits == 1, f, 1 - f), axis=-1)
      total = total + weight[:, None] * table[offset + index % size]
    columns.append(total)
  return mlp.definition(weights, jnp.concatenate(columns, axis=-1))


@both
def test_every_number_of_points_works(order, assert_close):
  table, weights, *rows = _arrays(num_points=300)
  for n in (0, 1, 3, 127, 128, 129, 257):
    part = [row[:n] for row in rows]
    assert_close(
        order("kernel")(table, weights, *part),
        order("definition")(table, weights, *part),
    )


@both
@pytest.mark.parametrize("count", [None, (150, 7)])
def test_platforms_without_the_kernel_make_the_same_of_its_parts(
    order, count, monkeypatch, assert_close
):
  arrays = _arrays(batch=(2,))
  count = None if count is None else jnp.array(count, jnp.int32)
  expected = order("kernel", count=count)(*arrays)
  served = kernels._PLATFORMS  # pylint: disable=protected-access
  parts = {
      platform: frozenset(name for name in targets if "hash_mlp" not in name)
      for platform, targets in served.items()
  }
  monkeypatch.setattr(kernels, "_PLATFORMS", parts)
  run = order("kernel", count=count)
  assert "hash_mlp" not in run.lower(*arrays).as_text()
  assert_close(run(*arrays), expected)


@both
def test_many_parts_equal_the_definition(order, assert_close):
  arrays = _arrays(num_points=5000)
  # 5000 x 8 additions into 300 entries.
  assert_close(order("kernel")(*arrays), order("definition")(*arrays), 2e-5)


@both
def test_batch_axes_and_vmap_equal_one_call_each(order, assert_close):
  arrays = _arrays(num_points=40, batch=(2, 3))
  run = order("kernel")
  each = [
      [run(*jax.tree.map(lambda leaf: leaf[i, j], arrays)) for j in range(3)]
      for i in range(2)
  ]
  stack = lambda *parts: jnp.stack(parts)
  expected = jax.tree.map(stack, *(jax.tree.map(stack, *row) for row in each))
  assert_close(jax.vmap(jax.vmap(run))(*arrays), expected)
  assert_close(run(*arrays), expected)


@pytest.mark.parametrize("wrap", [jax.remat, lambda function: function])
def test_slopes_train_through_a_scan(wrap, assert_close):
  table, weights, position, g, v = _arrays(num_points=64)

  def descend(function, params):
    def loss(params):
      output, slope = function(*params, position, GRID)
      return jnp.sum(output * g) + jnp.sum(slope * v)

    def step(params, _):
      gradient = jax.grad(wrap(loss))(params)
      return jax.tree.map(lambda w, d: w - 1e-3 * d, params, gradient), None

    return jax.lax.scan(step, params, length=3)[0]

  run = lambda function: jax.jit(functools.partial(descend, function))(
      (table, weights)
  )
  assert_close(run(hm.hash_mlp_slope), run(hm.definition_slope))


def test_positions_have_gradients_too(assert_close):
  arrays = _arrays(num_points=50)

  def run(function, table, weights, position, g, v):
    def loss(*arrays):
      output, slope = function(*arrays, GRID)
      return jnp.vdot(output, g) + jnp.vdot(slope, v)

    return jax.grad(loss, (0, 1, 2))(table, weights, position)

  assert_close(
      run(hm.hash_mlp_slope, *arrays), run(hm.definition_slope, *arrays), 2e-5
  )


def test_the_slope_is_that_of_a_gradient_by_the_position(assert_close):
  table, weights, position, _, _ = _arrays(num_points=50)
  slope = hm.hash_mlp_slope(table, weights, position, GRID)[1]
  first = lambda x: jnp.sum(hm.hash_mlp(table, weights, x, GRID)[:, 0])
  assert_close([slope], [jax.grad(first)(position)])


def test_a_gradient_of_a_gradient_is_that_of_the_parts(assert_close):
  table, weights, position, g, _ = _arrays(num_points=20)

  def twice(function, weights):
    inner = lambda w: jnp.vdot(g, function(table, w, position, GRID))
    return sum(jnp.sum(d**2) for d in jax.grad(inner)(weights))

  run = lambda function: jax.grad(functools.partial(twice, function))(weights)
  assert_close(run(hm.hash_mlp), run(hm.definition))


def test_nan_stays_in_its_point_and_wild_positions_in_the_table(assert_close):
  table, weights, position, g, v = _arrays(num_points=200)
  position = position.at[0].set(jnp.nan).at[1].set(-3e9).at[2].set(jnp.inf)
  output, slope, _, _ = _slope("kernel")(table, weights, position, g, v)
  assert np.isnan(output[0]).all() and np.isfinite(output[3:]).all()
  assert np.isfinite(slope[3:]).all()
  far = jnp.full((1, 3), 1.5)
  assert_close(
      hm.hash_mlp_slope(table, weights, far, GRID),
      hm.definition_slope(table, weights, far, GRID),
  )


def test_slopes_are_computed_where_they_are_asked_for():
  arrays = _arrays(num_points=8)
  text = _output("kernel").lower(*arrays).as_text()
  assert "@dreamjax_hash_mlp(" in text and "slope" not in text
  text = _slope("kernel").lower(*arrays).as_text()
  assert "@dreamjax_hash_mlp_slope_gradient(" in text
  assert "@dreamjax_mlp" not in text and "@dreamjax_hash_encode" not in text


@both
def test_other_shapes_are_left_to_the_parts(order):
  grid = GRID._replace(features=2)
  text = order("kernel", grid).lower(*_arrays(grid, (4, 16, 4))).as_text()
  assert "@dreamjax_hash_mlp" not in text
  assert "@dreamjax_mlp" in text and "@dreamjax_hash_encode" in text


@pytest.mark.parametrize("function", [hm.hash_mlp, hm.hash_mlp_slope])
@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"weights": ()}, ValueError, "weights is empty"),
        (
            {"weights": (np.zeros((7, 4), "f4"),)},
            ValueError,
            r"weights\[0\] is float32\[7, 4\], want float32\[8, O\]",
        ),
        (
            {"table": np.zeros((7, 4), "f4")},
            ValueError,
            r"table is float32\[7, 4\], want",
        ),
        (
            {"position": np.zeros((5, 2), "f4")},
            ValueError,
            "position is float32",
        ),
        (
            {"position": np.zeros((5, 3), "f8")},
            TypeError,
            "position is float64, want float32|position is float64",
        ),
    ],
)
def test_wrong_arguments_are_named(function, change, error, message):
  table, weights, position, _, _ = _arrays(num_points=5)
  arguments = {"table": table, "weights": weights, "position": position}
  with pytest.raises(error, match=f"{function.__name__}: {message}"):
    function(**(arguments | change), grid=GRID)
