"""Regularisers equal their closed forms and stay finite at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import losses


def test_orientation_counts_only_normals_seen_from_behind():
  weight = jnp.array([0.5, 0.5, 0.25])
  facing = jnp.array([-1.0, 1.0, 0.5])
  value = losses.orientation(weight, facing, num_rays=2)
  np.testing.assert_allclose(value, (0.5 + 0.25 * 0.25) / 2)


def test_orientation_does_not_pull_on_the_weights():
  gradient = jax.grad(losses.orientation)(
      jnp.array([0.5]), jnp.array([1.0]), 1
  )
  np.testing.assert_array_equal(gradient, 0.0)


def test_opacity_of_a_clear_and_of_a_solid_ray():
  np.testing.assert_allclose(
      losses.opacity(jnp.array([0.0, 1.0])), (0.1 + np.sqrt(1.01)) / 2
  )


def test_entropy_is_largest_in_the_middle_and_zero_at_the_ends():
  np.testing.assert_allclose(
      losses.entropy(jnp.array([0.5])), np.log(2), rtol=1e-6
  )
  assert losses.entropy(jnp.array([0.0, 1.0])) < 2e-4


@pytest.mark.parametrize("end", [0.0, 1e-7, 0.5, 1 - 1e-7, 1.0])
@pytest.mark.parametrize("loss", [losses.opacity, losses.entropy])
def test_gradients_are_finite_at_the_ends(loss, end):
  assert np.isfinite(jax.grad(loss)(jnp.array([end]))).all()


def test_z_variance_is_that_of_normalised_weights():
  z, weight = np.array([-0.2, 0.1, 0.4]), np.array([0.1, 0.4, 0.2])
  mean = np.average(z, weights=weight)
  expected = np.average((z - mean) ** 2, weights=weight)
  value = losses.z_variance(
      jnp.array([weight @ z]), jnp.array([weight @ z**2]),
      jnp.array([weight.sum()]),
  )
  np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_z_variance_ignores_rays_that_see_little():
  first, second = jnp.array([0.0, 0.3, 1.0]), jnp.array([0.0, 0.5, 1.0])
  opacity = jnp.array([0.0, 0.4, 1.0])
  value, gradient = jax.value_and_grad(losses.z_variance, argnums=(0, 1, 2))(
      first, second, opacity
  )
  np.testing.assert_allclose(value, 0.0, atol=1e-7)
  assert np.isfinite(np.stack(gradient)).all()
