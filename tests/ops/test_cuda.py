"""The CUDA kernels against the CPU kernels, on a machine with a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import op_inputs
import pytest

from dreamjax.ops import composite
from dreamjax.ops import hash_encode
from dreamjax.ops import hash_grid
from dreamjax.ops import hash_mlp
from dreamjax.ops import kernels
from dreamjax.ops import march
from dreamjax.ops import mlp

pytestmark = pytest.mark.gpu

SIZES = (0, 1, 127, 128, 129, 5000)


@pytest.fixture(scope="module")
def devices():
  """(CPU device, CUDA device)."""
  try:
    return jax.devices("cpu")[0], jax.devices("cuda")[0]
  except RuntimeError as error:
    pytest.skip(f"{error} (want JAX_PLATFORMS=cuda,cpu and a GPU)")


def _on_both(function, arrays, devices):
  """The results of a function on each device, as lists of NumPy arrays."""
  results = []
  for device in devices:
    placed = jax.device_put(arrays, device)
    result = jax.jit(function)(*placed)
    results.append([np.asarray(leaf) for leaf in jax.tree.leaves(result)])
  return zip(*results, strict=True)


def _assert_close(pairs):
  for cpu, cuda in pairs:
    # Sums of thousands of terms in another order, against the largest one.
    scale = np.abs(cpu).max(initial=1e-6)
    np.testing.assert_allclose(cuda, cpu, atol=2e-5 * scale)


def test_cuda_runs_compiled_kernels(devices):
  del devices
  assert "CUDA" in kernels.status().partition("(")[0]


@pytest.mark.parametrize("features", [1, 2, 4, 8])
@pytest.mark.parametrize("num_points", SIZES)
def test_hash_encode_and_both_orders_of_derivatives(
    num_points, features, devices
):
  grid = hash_grid.make_grid(4, features, 9, 5, 64, smoothstep=True)
  rng = np.random.default_rng(num_points)
  arrays = (
      rng.normal(size=(grid.num_entries, features)).astype(np.float32),
      rng.uniform(size=(num_points, 3)).astype(np.float32),
      rng.normal(size=(num_points, grid.num_features)).astype(np.float32),
      rng.normal(size=(num_points, 3)).astype(np.float32),
  )

  def run(table, position, cotangent, direction):
    encode = lambda t, x: hash_encode.hash_encode(t, x, grid)
    feature, pull = jax.vjp(encode, table, position)

    def slope(t, x, g):
      inner = lambda x: jnp.vdot(g, encode(t, x))
      return jnp.vdot(direction, jax.grad(inner)(x))

    second = jax.grad(slope, (0, 1, 2))(table, position, cotangent)
    return feature, pull(cotangent), second

  _assert_close(_on_both(run, arrays, devices))


@pytest.mark.parametrize("features", [4, 8])
@pytest.mark.parametrize("num_points", SIZES)
def test_field_of_its_parts_where_there_is_no_kernel_of_both(
    num_points, features, devices
):
  grid = hash_grid.make_grid(4, features, 9, 5, 64, smoothstep=True)
  # In the order of a ray, where the gradient is summed before it is added.
  arrays = op_inputs.hash_mlp(
      grid, (4 * features, 16, 4), num_points, place="ray"
  )
  run = op_inputs.slope(
      lambda *params: hash_mlp.hash_mlp_slope(*params, grid)
  )
  _assert_close(_on_both(run, arrays, devices))


@pytest.mark.parametrize("sizes", [(20, 32, 4), (9, 128, 128, 128, 128, 3)])
@pytest.mark.parametrize("num_points", SIZES)
def test_mlp_and_both_orders_of_derivatives(num_points, sizes, devices):
  rng = np.random.default_rng(num_points)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  arrays = (
      tuple(
          normal(rows, columns) / np.float32(np.sqrt(rows))
          for rows, columns in zip(sizes[:-1], sizes[1:])
      ),
      normal(num_points, sizes[0]),
      normal(num_points, sizes[-1]),
      normal(num_points, sizes[0]),
  )

  def run(weights, x, cotangent, direction):
    output, pull = jax.vjp(mlp.mlp, weights, x)

    def slope(weights, cotangent):
      inner = lambda x: jnp.vdot(cotangent, mlp.mlp(weights, x))
      return jnp.vdot(direction, jax.grad(inner)(x))

    return output, pull(cotangent), jax.grad(slope, (0, 1))(weights, cotangent)

  _assert_close(_on_both(run, arrays, devices))


@pytest.mark.parametrize("num_rays", SIZES)
def test_march_and_composite(num_rays, devices):
  rng = np.random.default_rng(num_rays)
  direction = rng.normal(size=(num_rays, 3))
  direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
  shift = rng.uniform(-0.5, 0.5, (num_rays, 3))
  arrays = (
      (shift - 3 * direction).astype(np.float32),
      direction.astype(np.float32),
      rng.uniform(size=num_rays).astype(np.float32),
      np.asarray(march.pack(rng.uniform(size=(16, 16, 16)) < 0.3)),
      rng.exponential(size=16 * num_rays).astype(np.float32),
      rng.uniform(size=(16 * num_rays, 3)).astype(np.float32),
  )

  def run(origin, direction, jitter, occupancy, density, value):
    samples = march.march(
        origin,
        direction,
        jitter,
        occupancy,
        step=0.05,
        bound=1.0,
        max_samples=16 * num_rays,
    )
    render = lambda density, value: composite.composite(
        density, value, samples.width, samples.offset
    )
    results, pull = jax.vjp(render, density, value)
    return samples, results, pull(jax.tree.map(jnp.ones_like, results))

  _assert_close(_on_both(run, arrays, devices))
