"""Cameras stand where the conventions and the published recipes say."""

import dataclasses

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import cameras
from dreamjax import config as config_lib

JITTERED = config_lib.CameraConfig(
    distance=(1.0, 1.5),
    distance_unit="scene",
    fov_uniform_in="focal",
    elevation_degrees=(-10.0, 90.0),
    position_jitter=0.1,
    target_jitter=0.2,
    up_jitter=0.02,
)


sample_cameras = jax.jit(cameras.sample_cameras, static_argnums=(1, 3))
orbit = jax.jit(cameras.orbit)
camera_rays = jax.jit(cameras.camera_rays, static_argnums=(1, 2))


def many(config, count=4096, seed=0):
  """`count` views of as many one-view steps."""
  keys = random.split(random.key(seed), count)
  sample = lambda key: cameras.sample_cameras(
      key, config, jnp.zeros(1, jnp.int32), 1
  )
  return jax.tree.map(
      lambda leaf: leaf[:, 0], jax.jit(jax.vmap(sample))(keys)
  )


def uniform_distance(sample, low, high):
  """Kolmogorov-Smirnov distance to the uniform distribution."""
  fraction = np.sort((np.asarray(sample) - low) / (high - low))
  count = len(fraction)
  ranks = np.arange(count)
  return max(
      np.max(fraction - ranks / count), np.max((ranks + 1) / count - fraction)
  )


# The 99.9% quantile of the Kolmogorov-Smirnov distance at 4096 samples.
CRITICAL = 1.95 / np.sqrt(4096)


def test_azimuth_zero_stands_in_front_and_ninety_at_the_objects_left():
  camera = orbit(jnp.array([0.0, jnp.pi / 2]), 0.0, 0.8, 3.0)
  np.testing.assert_allclose(
      camera.origin, [[3, 0, 0], [0, 3, 0]], atol=1e-6
  )


def test_from_the_front_left_of_object_is_right_of_image_and_z_is_up():
  rays = camera_rays(orbit(0.0, 0.0, 0.8, 3.0), 8, 8)
  direction = np.asarray(rays.direction).reshape(8, 8, 3)
  assert (direction[:, -1, 1] > 0).all() and (direction[:, 0, 1] < 0).all()
  assert (direction[0, :, 2] > 0).all() and (direction[-1, :, 2] < 0).all()


def test_outermost_pixel_edges_span_the_field_of_view():
  fov = 0.9
  rays = camera_rays(orbit(0.3, 0.2, fov, 3.0), 101, 101)
  direction = np.asarray(rays.direction).reshape(101, 101, 3)
  angle = np.arccos(np.dot(direction[0, 50], direction[-1, 50]))
  # From the first pixel's centre to the last one's is 100 pixels of 101.
  expected = 2 * np.arctan(np.tan(fov / 2) * 100 / 101)
  np.testing.assert_allclose(angle, expected, atol=1e-5)


def test_field_of_view_is_vertical_and_pixels_are_square():
  rays = camera_rays(orbit(0.0, 0.0, 0.8, 3.0), 4, 8)
  direction = np.asarray(rays.direction).reshape(4, 8, 3)
  plane = direction[..., 1:] / -direction[..., :1]
  np.testing.assert_allclose(
      plane[0, 1, 0] - plane[0, 0, 0], plane[0, 0, 1] - plane[1, 0, 1],
      rtol=1e-5,
  )


def test_centre_pixel_sees_the_origin():
  camera = orbit(jnp.linspace(-3, 3, 7), jnp.linspace(-1, 1.5, 7),
                         0.8, 2.5)
  rays = camera_rays(camera, 3, 5)
  centre = np.asarray(rays.direction).reshape(7, 3, 5, 3)[:, 1, 2]
  np.testing.assert_allclose(
      np.asarray(camera.origin) + 2.5 * centre, 0.0, atol=1e-5
  )


def test_rotation_is_orthonormal_and_right_handed_even_at_the_poles():
  elevation = jnp.array([-jnp.pi / 2, -0.3, 0.0, 1.57, jnp.pi / 2])
  rotation = np.asarray(orbit(1.0, elevation, 0.8, 2.0).rotation)
  np.testing.assert_allclose(
      rotation @ rotation.swapaxes(-1, -2), np.tile(np.eye(3), (5, 1, 1)),
      atol=1e-6,
  )
  np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-5)


def test_image_does_not_turn_when_the_camera_reaches_the_pole():
  below, above = orbit(
      0.7, jnp.array([jnp.pi / 2 - 1e-2, jnp.pi / 2]), 0.8, 2.0
  ).rotation
  np.testing.assert_allclose(below, above, atol=2e-2)


def test_jittered_rotations_are_orthonormal():
  rotation = np.asarray(many(JITTERED).rotation)
  np.testing.assert_allclose(
      rotation.swapaxes(-1, -2) @ rotation,
      np.tile(np.eye(3), (len(rotation), 1, 1)), atol=3e-6,
  )


def test_area_uniform_elevation_has_uniform_sine():
  config = dataclasses.replace(JITTERED, elevation_area_probability=1.0)
  sine = np.sin(np.asarray(many(config).elevation))
  assert uniform_distance(sine, np.sin(np.radians(-10)), 1.0) < CRITICAL


def test_angle_uniform_elevation_is_uniform():
  config = dataclasses.replace(JITTERED, elevation_area_probability=0.0)
  elevation = np.degrees(np.asarray(many(config).elevation))
  assert uniform_distance(elevation, -10, 90) < CRITICAL


def test_elevation_coin_mixes_the_two_laws_within_one_step():
  camera = sample_cameras(
      random.key(1), JITTERED, jnp.arange(4096), 4096
  )
  sine = np.sin(np.asarray(camera.elevation))
  ends = np.radians(-10), np.radians(90)
  low = np.sin(ends[0])
  by_area = (np.sin(0.5) - low) / (1 - low)
  by_angle = (0.5 - ends[0]) / (ends[1] - ends[0])
  share = np.mean(sine < np.sin(0.5))
  assert abs(share - (by_area + by_angle) / 2) < 0.03


def test_focal_uniform_field_of_view_has_uniform_focal_length():
  fov = np.asarray(many(JITTERED).fov)
  ends = 1 / np.tan(np.radians(JITTERED.fov_degrees) / 2)
  assert uniform_distance(1 / np.tan(fov / 2), ends[1], ends[0]) < CRITICAL


def test_frame_unit_keeps_the_unit_ball_inside_the_frame():
  camera = many(config_lib.CameraConfig())
  multiple = np.linalg.norm(camera.origin, axis=-1) * np.sin(camera.fov / 2)
  assert uniform_distance(multiple, 1.0, 1.25) < CRITICAL


def test_each_azimuth_stratum_holds_one_view():
  camera = sample_cameras(
      random.key(3), config_lib.CameraConfig(), jnp.arange(8), 8
  )
  fraction = np.asarray(camera.azimuth) / (2 * np.pi)
  # The strata are turned by one shared angle: some turn fits every view.
  turns = np.linspace(0, 1, 2048, endpoint=False)[:, None]
  strata = np.sort(np.floor(np.mod(fraction - turns, 1.0) * 8), axis=-1)
  assert (strata == np.arange(8)).all(-1).any()
  assert len(np.unique(np.round(np.mod(fraction * 8, 1.0), 4))) == 8


def test_azimuth_of_every_view_number_is_uniform():
  keys = random.split(random.key(4), 4096)
  sample = lambda key: sample_cameras(
      key, config_lib.CameraConfig(), jnp.array([1]), 4
  ).azimuth[0]
  azimuth = jax.vmap(sample)(keys)
  assert uniform_distance(azimuth, -np.pi, np.pi) < CRITICAL


def test_views_do_not_depend_on_how_they_are_split():
  key = random.key(5)
  whole = sample_cameras(key, JITTERED, jnp.arange(4), 4)
  parts = [
      sample_cameras(key, JITTERED, jnp.arange(2) + 2 * part, 4)
      for part in range(2)
  ]
  joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
  # Not bit for bit: compilers round vectors of other lengths differently.
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, joined
  )


def test_jitters_have_their_published_spread():
  config = dataclasses.replace(
      JITTERED, distance=(2.0, 2.0), target_jitter=0.0, up_jitter=0.0
  )
  camera = many(config)
  still = orbit(camera.azimuth, camera.elevation, 1.0, 2.0)
  shift = np.asarray(camera.origin - still.origin)
  assert uniform_distance(shift[:1365].ravel(), -0.1, 0.1) < CRITICAL


def test_target_and_up_jitter_tilt_the_view_by_their_spread():
  config = dataclasses.replace(
      JITTERED, distance=(2.0, 2.0), elevation_degrees=(0.0, 0.0),
      position_jitter=0.0, target_jitter=0.01, up_jitter=0.03,
  )
  camera = many(config)
  right, _, backward = np.moveaxis(np.asarray(camera.rotation), -1, 0)
  # To first order the line of sight misses the origin by the target's shift,
  # and the horizon rolls by the up vector's.
  miss = np.asarray(camera.origin) - 2 * backward
  np.testing.assert_allclose(miss[:, 2].std(), 0.01, rtol=0.05)
  np.testing.assert_allclose(right[:, 2].std(), 0.03, rtol=0.05)


@pytest.mark.parametrize("field", ["distance_unit", "fov_uniform_in"])
def test_unknown_choice_is_named(field):
  config = dataclasses.replace(JITTERED, **{field: "furlong"})
  with pytest.raises(ValueError, match=f"{field} is 'furlong', want one of"):
    cameras.sample_cameras(random.key(0), config, jnp.arange(1), 1)
