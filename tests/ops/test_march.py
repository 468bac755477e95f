"""Tests of the ray marcher: closed forms, brute force, kernel = definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import op_inputs
import pytest

from dreamjax.ops import march as march_lib

march = march_lib.march
STEP = 2 / 32
FULL = march_lib.pack(jnp.ones((4, 4, 4), bool))


def _run(function=march, **numbers):
  return op_inputs.march(function, **numbers)


def _brute_force(origin, direction, jitter, occupancy, step, bound):
  """Distances of one ray's samples in float64."""
  resolution = occupancy.shape[0]
  occupied = np.unpackbits(occupancy, axis=-1, bitorder="little")
  b = origin @ direction
  square = b * b - origin @ origin + bound * bound
  if square <= 0:
    return []
  near, far = max(-b - square**0.5, 0), -b + square**0.5
  distances = []
  for k in range(10000):
    t = near + (k + jitter) * step
    if t >= far:
      return distances
    cell = (origin + t * direction + bound) / (2 * bound) * resolution
    cell = np.clip(np.floor(cell).astype(int), 0, resolution - 1)
    if occupied[tuple(cell)]:
      distances.append(t)


def _through_the_centre(origin_x=-3.0):
  return (
      jnp.array([[origin_x, 0.0, 0.0]]),
      jnp.array([[1.0, 0.0, 0.0]]),
      jnp.array([0.25]),
  )


def test_full_grid_is_sampled_at_every_step_of_the_diameter():
  samples = _run()(*_through_the_centre(), FULL)
  assert list(samples.offset) == [0, 32]
  np.testing.assert_allclose(
      samples.distance[:32], 2 + (np.arange(32) + 0.25) * STEP, rtol=1e-6
  )
  np.testing.assert_array_equal(samples.width[:32], np.float32(STEP))
  for slots in (samples.distance, samples.width, samples.ray):
    np.testing.assert_array_equal(slots[32:], 0)


def test_a_camera_inside_the_ball_looks_forward_only():
  samples = _run()(*_through_the_centre(0.0), FULL)
  assert list(samples.offset) == [0, 16]
  np.testing.assert_allclose(samples.distance[0], 0.25 * STEP)


def test_empty_grid_missed_ball_and_ball_behind_have_no_samples():
  empty = jnp.zeros((4, 4, 1), jnp.uint8)
  origin, direction, jitter = _through_the_centre()
  beside = origin + jnp.array([0.0, 1.01, 0.0])
  for rays in (
      (origin, direction, jitter, empty),
      (beside, direction, jitter, FULL),
      (origin, -direction, jitter, FULL),
  ):
    samples = _run()(*rays)
    assert list(samples.offset) == [0, 0]
    assert samples.overflow == 0


def test_occupied_half_is_sampled_and_the_other_is_not():
  half = jnp.zeros((4, 4, 1), jnp.uint8).at[2:].set(255)  # x > 0
  samples = _run()(*_through_the_centre(), half)
  assert list(samples.offset) == [0, 16]
  assert float(samples.distance[0]) > 3


def test_samples_equal_a_brute_force_in_double_precision():
  rays, occupancy = op_inputs.rays(100), op_inputs.occupancy()
  expected = [
      _brute_force(*ray, np.asarray(occupancy), 0.07, 1.5)
      for ray in zip(*(np.asarray(x, np.float64) for x in rays))
  ]
  for function in (march, march_lib.definition):
    samples = _run(function, step=0.07, bound=1.5)(*rays, occupancy)
    np.testing.assert_array_equal(
        np.diff(samples.offset), [len(distances) for distances in expected]
    )
    total = int(samples.offset[-1])
    assert total > 500
    np.testing.assert_allclose(
        samples.distance[:total], np.concatenate(expected), atol=1e-5
    )
    ray = np.repeat(np.arange(100), np.diff(samples.offset))
    np.testing.assert_array_equal(samples.ray[:total], ray)


@pytest.mark.parametrize("num_rays", [0, 1, 127, 128, 129])
def test_kernel_equals_definition(num_rays):
  arrays = (*op_inputs.rays(num_rays, seed=num_rays), op_inputs.occupancy())
  expected = _run(march_lib.definition)(*arrays)
  op_inputs.assert_same_samples(_run()(*arrays), expected)


@pytest.mark.parametrize("max_samples", [0, 1, 100])
def test_samples_without_a_slot_are_dropped_from_the_end_and_counted(
    max_samples,
):
  arrays = (*op_inputs.rays(50), op_inputs.occupancy())
  for function in (march, march_lib.definition):
    whole = _run(function)(*arrays)
    total = int(whole.offset[-1])
    assert total > 100
    part = _run(function, max_samples=max_samples)(*arrays)
    expected = march_lib.Samples(
        whole.distance[:max_samples],
        whole.width[:max_samples],
        whole.ray[:max_samples],
        np.minimum(whole.offset, max_samples),
        total - max_samples,
    )
    op_inputs.assert_same_samples(part, expected)


def test_batch_axes_and_vmap_equal_one_call_each():
  rays = op_inputs.rays(20, batch=(2, 3))
  occupancy = op_inputs.occupancy(batch=(2, 3))
  run = _run(max_samples=200)
  whole = run(*rays, occupancy)
  assert whole.overflow.shape == (2, 3)
  twice = jax.vmap(jax.vmap(run))(*rays, occupancy)
  op_inputs.assert_same_samples(twice, whole)
  for i, j in np.ndindex(2, 3):
    one = run(*(x[i, j] for x in rays), occupancy[i, j])
    expected = jax.tree.map(lambda x: x[i, j], whole)
    op_inputs.assert_same_samples(one, expected)


def test_no_gradient_flows_through_the_samples():
  rays, occupancy = op_inputs.rays(5), op_inputs.occupancy()
  distance = lambda origin: jnp.sum(
      march(
          origin, *rays[1:], occupancy, step=STEP, bound=1.0, max_samples=64
      ).distance
  )
  np.testing.assert_array_equal(jax.jit(jax.grad(distance))(rays[0]), 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30, 0.0])
def test_odd_rays_end_and_leave_their_neighbours_alone(bad):
  arrays = (*op_inputs.rays(3), op_inputs.occupancy())
  expected = _run()(*arrays)
  for index in range(3):
    odd = list(arrays)
    odd[index] = odd[index].at[1].set(bad)
    samples = _run()(*odd)
    counts, wanted = np.diff(samples.offset), np.diff(expected.offset)
    assert counts[0] == wanted[0] and counts[2] == wanted[2]
    assert counts[1] <= 32
    if np.isnan(bad):
      assert counts[1] == 0


def _arguments(**changes):
  arguments = {
      "origin": np.zeros((5, 3), "f4"),
      "direction": np.zeros((5, 3), "f4"),
      "jitter": np.zeros((5,), "f4"),
      "occupancy": np.zeros((4, 4, 1), "u1"),
      "step": 0.1,
      "bound": 1.0,
      "max_samples": 10,
  }
  return arguments | changes


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"origin": np.zeros((5, 3))}, TypeError, "origin is float64"),
        ({"occupancy": np.zeros((4, 4, 1), "f4")}, TypeError, "want uint8"),
        ({"occupancy": np.zeros((4, 4, 1), bool)}, TypeError, "want uint8"),
        ({"jitter": 0.5}, TypeError, "jitter is of type float"),
        ({"origin": np.zeros((5, 2), "f4")}, ValueError, "origin is"),
        ({"direction": np.zeros((4, 3), "f4")}, ValueError, "R=5, 3"),
        ({"jitter": np.zeros(4, "f4")}, ValueError, r"\[4\], want float32\[R"),
        ({"jitter": np.zeros((), "f4")}, ValueError, r"want float32\[R=5\]"),
        ({"occupancy": np.zeros((4, 5, 1), "u1")}, ValueError, "occupancy is"),
        ({"occupancy": np.ones((4, 4, 4), "u1")}, ValueError, "has 4 bytes"),
        ({"occupancy": np.ones((9, 9, 1), "u1")}, ValueError, "want 2: 9"),
        ({"occupancy": np.zeros((64,), "u1")}, ValueError, "occupancy is"),
        ({"occupancy": np.zeros((0, 0, 0), "u1")}, ValueError, "has 0 cells"),
        ({"step": 0.0}, ValueError, "step is 0.0"),
        ({"step": float("nan")}, ValueError, "step is nan"),
        ({"bound": -1.0}, ValueError, "bound is -1.0"),
        ({"max_samples": -1}, ValueError, "max_samples is -1"),
        ({"max_samples": 2**31}, ValueError, "max_samples is 2147483648"),
        ({"step": 1e-9}, ValueError, "march fewer rays"),
        (
            {
                "origin": np.zeros((0, 3), "f4"),
                "direction": np.zeros((0, 3), "f4"),
                "jitter": np.zeros(0, "f4"),
                "step": 1e-12,
            },
            ValueError,
            "or in longer steps",
        ),
    ],
)
def test_wrong_arguments_are_named(changes, error, message):
  with pytest.raises(error, match="march: .*" + message):
    march(**_arguments(**changes))
