"""Timesteps and noise of score distillation."""

import jax
from jax import random
import jax.numpy as jnp
import numpy as np

from dreamjax import cameras
from dreamjax import config as config_lib
from dreamjax.diffusion import schedule as schedule_lib
from dreamjax.guidance import draws

KEY = random.key(3)
SCHEDULE = schedule_lib.make(schedule_lib.ScheduleConfig())
SHAPE = (16, 16, 4)
# Pixels that the near side of an object moves when the camera goes all around.
TURN = 40


def timesteps(config, views=64, progress=0.0, schedule=SCHEDULE):
  return np.asarray(
      draws.timesteps(KEY, jnp.arange(views), progress, schedule, config)
  )


def test_timesteps_are_stratified_in_the_noises_of_a_view():
  config = config_lib.GuidanceConfig(
      noise_samples=4,
      t_min=config_lib.constant(0.2),
      t_max=config_lib.constant(0.6),
  )
  t = timesteps(config, views=256)
  assert t.shape == (4, 256)
  for k in range(4):
    low, high = 200 + 100 * k, 300 + 100 * k
    assert low <= t[k].min() < low + 5 and high - 5 < t[k].max() <= high
    # Uniform in the stratum: standard error 29 / 16.
    assert abs(t[k].mean() - (low + high) / 2) < 7


def test_views_share_their_timesteps_or_do_not():
  shared = timesteps(config_lib.GuidanceConfig(share_t=True))
  assert (shared == shared[:, :1]).all()
  assert len(set(timesteps(config_lib.GuidanceConfig())[0])) > 40


def test_timesteps_follow_their_schedules_whatever_t_is():
  falling = config_lib.Schedule(0.9, 0.1)
  config = config_lib.GuidanceConfig(t_min=falling, t_max=falling)
  half = schedule_lib.make(
      schedule_lib.ScheduleConfig(num_train_timesteps=500)
  )
  for progress, fraction in ((0.0, 0.9), (0.25, 0.7), (1.0, 0.1)):
    assert (timesteps(config, progress=progress) == 1000 * fraction).all()
    t = timesteps(config, progress=progress, schedule=half)
    assert (t == 500 * fraction).all()
  edge = config_lib.constant(1.0)
  config = config_lib.GuidanceConfig(t_min=edge, t_max=edge)
  assert (timesteps(config) == 999).all()


def noise(fixed, degrees, elevations=0.0, seed=0, progress=0.0, count=1):
  """Noise of cameras at azimuths and elevations, f32[K, B, h, w, C]."""
  angles = jnp.broadcast_arrays(
      jnp.radians(jnp.asarray(degrees, jnp.float32)),
      jnp.radians(jnp.asarray(elevations, jnp.float32)),
  )
  config = config_lib.GuidanceConfig(fixed_noise=fixed, noise_samples=count)
  return np.asarray(jax.jit(
      lambda key: draws.noise(
          key,
          KEY,
          jnp.arange(len(degrees)),
          cameras.orbit(*angles, 1.0, 1.0),
          SHAPE,
          progress,
          config,
      )
  )(random.key(seed)))


ALL = config_lib.constant(1.0)


def test_fixed_noise_is_the_same_in_every_step_and_fresh_noise_is_not():
  views, rises = [0.0, 100.0], [0.0, 50.0]
  one, other = (noise(ALL, views, rises, seed=seed) for seed in (0, 1))
  np.testing.assert_array_equal(one, other)
  alone = noise(ALL, views[1:], rises[1:])
  # Programs of other shapes may round the same normals differently.
  np.testing.assert_allclose(one[:, 1:], alone, rtol=1e-6)
  none = config_lib.constant(0.0)
  one, other = (noise(none, views, seed=seed) for seed in (0, 1))
  assert np.abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.1


def test_fixed_noise_moves_as_the_near_side_of_the_object():
  step = 360 / TURN
  # The camera goes counter-clockwise by three pixels and up by two.
  here, there = noise(ALL, [20 * step, 23 * step], [step, 3 * step])[0]
  # The object's near side goes to the left and down in the picture.
  np.testing.assert_array_equal(here[:-2, 3:], there[2:, :-3])
  assert np.abs(here - there).mean() > 0.5
  # Right and up are where the cameras say: a point at azimuth 0 on a ball.
  camera = cameras.orbit(jnp.float32([0.0, 0.3]), 0.2, 1.0, 3.0)
  way = jnp.float32([1.0, 0.0, 0.0]) - camera.origin
  right, up = camera.rotation[:, :, 0], camera.rotation[:, :, 1]
  seen = jnp.sum(way * right, -1)
  assert seen[1] < seen[0] - 0.1
  camera = cameras.orbit(0.0, jnp.float32([0.0, 0.3]), 1.0, 3.0)
  seen = jnp.sum((jnp.float32([1, 0, 0]) - camera.origin) * up, -1)
  assert seen[1] < seen[0] - 0.1


def test_fixed_noise_closes_the_circle_and_reaches_both_poles():
  turns = noise(ALL, [-90.0, 270.0, 630.0], [-90.0, -90.0, -90.0])[0]
  np.testing.assert_array_equal(turns[0], turns[1])
  np.testing.assert_array_equal(turns[0], turns[2])
  low, high = noise(ALL, [0.0, 0.0], [-90.0, 90.0])[0]
  # Opposite ends of the map: beyond its last and first rows lies nothing.
  assert np.abs(low[:, None] - high[None]).min() > 0


def test_noise_is_white_whatever_part_of_it_is_fixed():
  for fixed in (ALL, config_lib.Schedule(0.0, 1.0)):
    drawn = noise(fixed, np.arange(64) * 5.6, 20.0, progress=0.3, count=3)
    assert drawn.shape == (3, 64, *SHAPE)
    assert abs(drawn.mean()) < 0.03
    assert abs(drawn.std() - 1) < 0.03
  # A share of the variance: two steps agree on 0.3 of it.
  fixed = config_lib.Schedule(0.0, 1.0)
  one, other = (
      noise(fixed, [0.0], seed=seed, progress=0.3, count=8).ravel()
      for seed in (0, 1)
  )
  assert abs(np.corrcoef(one, other)[0, 1] - 0.3) < 0.05
