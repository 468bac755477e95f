"""What chance gives score distillation: timesteps and noise of the views.

Fresh noise in every step averages over all that a denoiser may mean, and what
is small and may lie here or there is lost in the mean. Noise that belongs to
the direction of the camera makes the denoiser's answer a function of the
object, as in deterministic sampling (Flow Score Distillation, Yan et al. 2024).
It is cut from one map around the object, moved as the near side of the object
moves in the picture, so that neighbouring views agree on what they see.

Notation: B views, K noises per view, h w latent pixels, C latent channels, T
timesteps. What is drawn for a view depends on its global number and its camera
alone, whatever device computes it.
"""

import jax
from jax import random
import jax.numpy as jnp
import numpy as np

from dreamjax import schedules

# The radius of an object that fills the picture, as a share of its side.
_RADIUS = 0.4


def timesteps(key, indices, progress, schedule, config):
  """Timesteps between t_min and t_max, one in each of K equal strata.

  Args:
    key: the step's key for timesteps.
    indices: i32[B], global numbers of the views.
    progress: f32[], in [0, 1].
    schedule: diffusion.schedule.NoiseSchedule.
    config: config.GuidanceConfig.
  Returns:
    i32[K, B], in [0, T).
  """
  count = config.noise_samples
  low = schedules.value(config.t_min, progress)
  high = schedules.value(config.t_max, progress)
  total = schedule.config.num_train_timesteps

  def draw(index):
    place = random.uniform(random.fold_in(key, index), (count,))
    place = (jnp.arange(count, dtype=jnp.float32) + place) / count
    t = jnp.round(total * (low + (high - low) * place))
    return jnp.clip(t.astype(jnp.int32), 0, total - 1)

  views = jnp.asarray(indices, jnp.int32)
  if config.share_t:
    views = jnp.zeros_like(views)
  return jax.vmap(draw, out_axes=1)(views)


def noise(key, key_map, indices, camera, shape, progress, config):
  """Unit noise, part of it fresh and part of it fixed to directions.

  Args:
    key: the step's key for noise.
    key_map: the run's key for the map, the same in every step.
    indices: i32[B], global numbers of the views.
    camera: cameras.Camera of the B views.
    shape: (h, w, C).
    progress: f32[], in [0, 1].
    config: config.GuidanceConfig; `fixed_noise` is the fixed share of the
      variance.
  Returns:
    f32[K, B, h, w, C].
  """
  fresh = jax.vmap(
      lambda index: random.normal(
          random.fold_in(key, index), (config.noise_samples, *shape)
      ),
      out_axes=1,
  )(jnp.asarray(indices, jnp.int32))
  if config.fixed_noise.start == config.fixed_noise.end == 0:
    return fresh
  fixed = _cut(key_map, camera, config.noise_samples, shape)
  share = schedules.value(config.fixed_noise, progress)
  return jnp.sqrt(share) * fixed + jnp.sqrt(1 - share) * fresh


def _cut(key, camera, count, shape):
  """f32[K, B, h, w, C], pieces of one map around the object, per camera."""
  height, width, channels = shape
  turn = round(2 * np.pi * _RADIUS * width)
  # Whole pixels: anything between would not be white.
  pixels = lambda angle: jnp.round(angle * (turn / (2 * np.pi)))
  top = pixels(np.pi / 2 - camera.elevation).astype(jnp.int32)
  left = pixels(camera.azimuth).astype(jnp.int32)
  row = top[:, None] + jnp.arange(height)
  column = (left[:, None] + jnp.arange(width)) % turn
  around = random.normal(key, (count, turn // 2 + 1 + height, turn, channels))
  return around[:, row[:, :, None], column[:, None, :]]
