"""Lamps light what they face, on the schedule of the recipe."""

import dataclasses

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import cameras
from dreamjax import config as config_lib
from dreamjax import shading

CONFIG = config_lib.ShadingConfig()
COUNT = 4096


def lights(config, progress, seed=0):
  camera = cameras.orbit(jnp.zeros(COUNT), 0.3, 0.8, 2.0)
  return camera, shading.sample_lights(
      random.key(seed), config, camera, jnp.arange(COUNT), progress
  )


def one_light(position, finite, ambient=0.25, textureless=False):
  return shading.Light(
      jnp.array([position]), jnp.array([finite]), jnp.array([ambient]),
      jnp.array([textureless]),
  )


def test_surface_that_faces_the_lamp_shows_its_full_colour():
  albedo = jnp.array([[0.2, 0.4, 0.8]])
  up = jnp.array([[0.0, 0.0, 1.0]])
  light = one_light([0.0, 0.0, 3.0], 1.0)
  color = shading.shade(albedo, up, jnp.zeros((1, 3)), light)
  np.testing.assert_allclose(color, albedo, rtol=1e-6)


def test_surface_that_faces_away_shows_the_ambient_share():
  albedo = jnp.array([[0.2, 0.4, 0.8]])
  down = jnp.array([[0.0, 0.0, -1.0]])
  light = one_light([0.0, 0.0, 3.0], 1.0)
  color = shading.shade(albedo, down, jnp.zeros((1, 3)), light)
  np.testing.assert_allclose(color, 0.25 * albedo, rtol=1e-6)


def test_point_light_is_seen_from_the_surface_directional_one_is_not():
  up, white = jnp.array([[0.0, 0.0, 1.0]]), jnp.ones((1, 3))
  below = jnp.array([[3.0, 0.0, -1.0]])
  point = one_light([0.0, 0.0, 3.0], 1.0, ambient=0.0)
  distant = one_light([0.0, 0.0, 3.0], 0.0, ambient=0.0)
  np.testing.assert_allclose(
      shading.shade(white, up, below, point)[0, 0], 0.8, rtol=1e-6
  )
  np.testing.assert_allclose(
      shading.shade(white, up, below, distant)[0, 0], 1.0, rtol=1e-6
  )


def test_textureless_surface_is_white():
  light = one_light([0.0, 0.0, 3.0], 0.0, textureless=True)
  color = shading.shade(
      jnp.array([[0.2, 0.4, 0.8]]), jnp.array([[0.0, 0.0, 1.0]]),
      jnp.zeros((1, 3)), light,
  )
  np.testing.assert_allclose(color, 1.0, rtol=1e-6)


def test_unlit_surface_shows_its_albedo_whatever_its_normal():
  albedo = jnp.array([[0.2, 0.4, 0.8]])
  for normal in (jnp.zeros((1, 3)), jnp.array([[0.0, 0.0, -1.0]])):
    color = shading.shade(albedo, normal, albedo, shading.unlit(1))
    np.testing.assert_array_equal(color, albedo)


def test_gradient_is_finite_inside_the_lamp():
  light = one_light([0.1, 0.2, 0.3], 1.0)
  position = jnp.array([[0.1, 0.2, 0.3]])
  total = lambda normal, position: jnp.sum(
      shading.shade(position, normal, position, light)
  )
  gradient = jax.grad(total, argnums=(0, 1))(jnp.zeros((1, 3)), position)
  assert np.isfinite(np.stack(gradient)).all()


def test_nothing_is_lit_before_its_time():
  _, light = lights(CONFIG, CONFIG.albedo_until - 1e-3)
  assert (light.ambient == 1).all() and not light.textureless.any()


def test_shares_of_albedo_shaded_and_textureless_are_the_published_ones():
  _, light = lights(CONFIG, 0.5)
  unlit = np.mean(np.asarray(light.ambient) == 1)
  textureless = np.mean(light.textureless)
  # Three standard deviations of 4096 coins are below 0.024.
  np.testing.assert_allclose([unlit, textureless], [0.25, 0.375], atol=0.024)
  assert not (np.asarray(light.textureless) & (light.ambient == 1)).any()


def test_point_light_keeps_its_distance_and_its_jitter():
  config = dataclasses.replace(CONFIG, light_distance=(0.8, 1.5))
  camera, light = lights(config, 1.0)
  distance = np.linalg.norm(light.position, axis=-1)
  assert distance.min() > 0.799 and distance.max() < 1.501
  np.testing.assert_allclose(distance.mean(), 1.15, atol=0.02)
  still = dataclasses.replace(config, light_jitter=0.0)
  _, light = lights(still, 1.0)
  direction = light.position / jnp.linalg.norm(
      light.position, axis=-1, keepdims=True
  )
  np.testing.assert_allclose(direction, camera.origin / 2.0, atol=1e-5)


def test_lift_raises_the_lamp():
  config = dataclasses.replace(CONFIG, light_jitter=0.0)
  _, low = lights(config, 1.0)
  _, high = lights(dataclasses.replace(config, light_lift=1.0), 1.0)
  assert (high.position[:, 2] / low.position[:, 2] > 1.2).all()


def test_unknown_kind_of_light_is_named():
  with pytest.raises(ValueError, match="light is 'moon', want one of"):
    lights(dataclasses.replace(CONFIG, light="moon"), 1.0)
