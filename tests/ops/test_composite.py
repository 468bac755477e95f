"""Tests of compositing: closed forms, brute force, kernel = definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import op_inputs
import pytest

from dreamjax.ops import composite as composite_lib

composite = jax.jit(composite_lib.composite)


def _brute_force(density, value, width, offset):
  """The three results in float64, a loop per sample."""
  weight = np.zeros(len(density))
  rays = np.zeros((len(offset) - 1, value.shape[1]))
  for ray, (begin, end) in enumerate(zip(offset[:-1], offset[1:])):
    left = 1.0
    for i in range(begin, end):
      weight[i] = left * -np.expm1(-density[i] * width[i])
      left *= np.exp(-density[i] * width[i])
      rays[ray] += weight[i] * value[i]
  opacity = [weight[a:b].sum() for a, b in zip(offset[:-1], offset[1:])]
  return rays, np.array(opacity), weight


def test_dense_fog_hides_what_is_behind():
  value = jnp.eye(4)
  width = jnp.full((4,), 0.1)
  offset = jnp.array([0, 4], jnp.int32)
  ray, opacity, weight = composite(jnp.full((4,), 1e4), value, width, offset)
  np.testing.assert_allclose(ray[0], value[0], atol=1e-6)
  np.testing.assert_allclose(opacity, 1)
  np.testing.assert_allclose(weight, [1, 0, 0, 0], atol=1e-6)


def test_uniform_fog_absorbs_exponentially():
  density, width = jnp.full((64,), 0.7), jnp.full((64,), 1 / 32)
  offset = jnp.array([0, 64], jnp.int32)
  ray, opacity, weight = composite(density, jnp.ones((64, 1)), width, offset)
  np.testing.assert_allclose(opacity[0], 1 - np.exp(-1.4), rtol=1e-5)
  np.testing.assert_allclose(ray[0, 0], opacity[0], rtol=1e-6)
  first, ratio = -np.expm1(-0.7 / 32), np.exp(-0.7 / 32)
  np.testing.assert_allclose(weight, first * ratio ** np.arange(64), rtol=1e-5)


def test_empty_rays_are_black_and_free_slots_weigh_nothing():
  density, value, width, _ = op_inputs.composite(3)
  offset = jnp.array([0, 0, 2, 2], jnp.int32)
  ray, opacity, weight = composite(density, value, width, offset)
  np.testing.assert_array_equal(ray[jnp.array([0, 2])], 0)
  np.testing.assert_array_equal(opacity[jnp.array([0, 2])], 0)
  np.testing.assert_array_equal(weight[2:], 0)
  assert (weight[:2] > 0).all()


def test_results_and_gradients_equal_a_brute_force_in_double_precision(
    assert_close,
):
  arrays = op_inputs.composite(6)
  exact = [np.asarray(x, np.float64) for x in arrays[:3]]
  offset = np.asarray(arrays[3])
  expected = _brute_force(*exact, offset)
  cotangents = [
      np.cos(1 + np.arange(x.size, dtype=np.float64)).reshape(x.shape)
      for x in expected
  ]

  def loss(inputs):
    results = _brute_force(*inputs, offset)
    return sum(np.vdot(c, x) for c, x in zip(cotangents, results))

  gradients = []
  for index, array in enumerate(exact):
    gradient = np.zeros_like(array)
    for place in np.ndindex(array.shape):
      sides = []
      for sign in (1, -1):
        inputs = [x.copy() for x in exact]
        inputs[index][place] += sign * 1e-6
        sides.append(loss(inputs))
      gradient[place] = (sides[0] - sides[1]) / 2e-6
    gradients.append(gradient)
  for function in (composite_lib.composite, composite_lib.definition):
    assert_close(op_inputs.render(function)(*arrays), (*expected, *gradients))


@pytest.mark.parametrize(
    "num_rays, channels",
    [(0, 3), (1, 3), (127, 3), (128, 1), (129, 8), (65, 2), (40, 19)],
)
def test_kernel_equals_definition(num_rays, channels, assert_close):
  arrays = op_inputs.composite(num_rays, channels)
  assert_close(
      op_inputs.render(composite_lib.composite)(*arrays),
      op_inputs.render(composite_lib.definition)(*arrays),
  )


@pytest.mark.parametrize("trained", [(0, 1), (0, 1, 2)])
@pytest.mark.parametrize("used", ["value", "opacity", "weight"])
def test_a_loss_on_one_result_has_the_definition_s_gradient(
    used, trained, assert_close
):
  index = ("value", "opacity", "weight").index(used)
  arrays = op_inputs.composite(33, batch=(2,))

  def gradients(function):
    def loss(density, value, width, offset):
      return jnp.sum(jnp.sin(function(density, value, width, offset)[index]))

    return jax.jit(jax.vmap(jax.grad(loss, trained)))(*arrays)

  assert_close(
      gradients(composite_lib.composite), gradients(composite_lib.definition)
  )


def test_no_slots_and_no_channels_work():
  offset = jnp.zeros(4, jnp.int32)
  none = jnp.zeros(0)
  ray, opacity, weight = composite(none, jnp.zeros((0, 3)), none, offset)
  assert ray.shape == (3, 3) and weight.shape == (0,)
  np.testing.assert_array_equal(opacity, 0)
  density, _, width, offset = op_inputs.composite(3)
  ray, opacity, _ = composite(
      density, jnp.zeros((density.size, 0)), width, offset
  )
  assert ray.shape == (3, 0) and (opacity >= 0).all()


def test_a_faint_ray_after_opaque_ones_keeps_its_precision():
  counts, dense = 16, 4000
  offset = jnp.arange(dense + 2, dtype=jnp.int32) * counts
  density = jnp.full(((dense + 1) * counts,), 500.0).at[-counts:].set(1e-4)
  width = jnp.full(density.shape, 0.02)
  for function in (composite, jax.jit(composite_lib.definition)):
    _, opacity, _ = function(density, density[:, None], width, offset)
    np.testing.assert_allclose(
        opacity[-1], -np.expm1(-1e-4 * 0.02 * counts), rtol=1e-5
    )


def test_weight_and_opacity_agree_for_any_density():
  for density in (0.0, 1e-8, 1e8, np.inf):
    width = jnp.full((9,), 0.1)
    offset = jnp.array([0, 9], jnp.int32)
    _, opacity, weight = composite(
        jnp.full((9,), density), jnp.ones((9, 1)), width, offset
    )
    np.testing.assert_allclose(weight.sum(), opacity[0], rtol=1e-6)
    assert 0 <= opacity[0] <= 1


def test_nan_stays_in_its_ray():
  density, value, width, offset = op_inputs.composite(4, seed=3)
  middle = int(offset[2])
  assert offset[3] > middle
  ray, _, _ = composite(density.at[middle].set(jnp.nan), value, width, offset)
  assert np.isnan(ray[2]).all()
  assert np.isfinite(ray[jnp.array([0, 1, 3])]).all()


def test_batch_axes_and_vmap_equal_one_call_each(assert_close):
  arrays = op_inputs.composite(10, batch=(2, 3))
  run = op_inputs.render(composite_lib.composite)
  whole = jax.vmap(jax.vmap(run))(*arrays)
  for i, j in np.ndindex(2, 3):
    assert_close([x[i, j] for x in whole], run(*(x[i, j] for x in arrays)))
  assert_close(composite(*arrays), whole[:3])


def test_a_scan_over_steps_differentiates():
  density, value, width, offset = op_inputs.composite(10)

  @functools.partial(jax.jit, donate_argnums=0)
  def fit(density):
    def step(density, _):
      loss = lambda d: jnp.sum(composite_lib.composite(
          d, value, width, offset)[1])
      loss, gradient = jax.value_and_grad(loss)(density)
      return density + 0.1 * gradient, loss

    return jax.lax.scan(step, density, length=6)

  _, losses = fit(density)
  assert (np.diff(losses) > 0).all()


def test_offsets_beyond_the_slots_are_clamped():
  density, value, width, _ = op_inputs.composite(3)
  offset = jnp.array([-7, 2**30, -5, 2**31 - 1], jnp.int32)
  run = op_inputs.render(composite_lib.composite)
  for result in run(density, value, width, offset):
    assert np.isfinite(result).all()


def _arguments(**changes):
  arguments = {
      "density": np.zeros(8, "f4"),
      "value": np.zeros((8, 3), "f4"),
      "width": np.zeros(8, "f4"),
      "offset": np.zeros(3, "i4"),
  }
  return arguments | changes


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"density": np.zeros(8)}, TypeError, "density is float64"),
        ({"value": np.zeros((8, 3), "f2")}, TypeError, "value is float16"),
        ({"offset": np.zeros(3, "i8")}, TypeError, "offset is int64"),
        ({"offset": [0, 8]}, TypeError, "offset is of type list"),
        ({"value": np.zeros((7, 3), "f4")}, ValueError, "M=8, C"),
        ({"value": np.zeros(8, "f4")}, ValueError, r"value is float32\[8\]"),
        ({"width": np.zeros(9, "f4")}, ValueError, r"want float32\[M=8\]"),
        ({"width": np.zeros((1, 8), "f4")}, ValueError, "width is"),
        ({"offset": np.zeros(0, "i4")}, ValueError, r"want int32\[R\+1\]"),
        ({"offset": np.zeros((2, 3), "i4")}, ValueError, "offset is"),
        ({"density": np.zeros((), "f4")}, ValueError, "density is"),
    ],
)
def test_wrong_arguments_are_named(changes, error, message):
  with pytest.raises(error, match="composite: .*" + message):
    composite_lib.composite(**_arguments(**changes))
