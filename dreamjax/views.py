"""The views of a step: what chance decides about them, and how they look.

V views, of H x W pixels each.
"""

from typing import NamedTuple

import jax
from jax import random
import jax.numpy as jnp
import numpy as np

from dreamjax import cameras
from dreamjax import render
from dreamjax import schedules
from dreamjax import shading
from dreamjax.fields import background as background_lib


class Draw(NamedTuple):
  """What chance decides.

  Attributes:
    camera: cameras.Camera.
    light: shading.Light.
    plain: f32[V, 3], plain background colours.
    is_plain: bool[V], whether they are shown, and not the learnt background.
    jitter: f32[V, H, W], see render.ray_jitter.
  """

  camera: cameras.Camera
  light: shading.Light
  plain: jax.Array
  is_plain: jax.Array
  jitter: jax.Array


def draw(key, config, indices, progress):
  """Draws views, each from its number alone but for stratified azimuths.

  Args:
    key: the step's key for views.
    config: config.Config.
    indices: i32[V], global numbers of the views.
    progress: f32[], in [0, 1].
  Returns:
    Draw.
  """
  key_camera, key_light, key_background, key_jitter = random.split(key, 4)
  camera = cameras.sample_cameras(
      key_camera, config.camera, indices, config.train.views
  )
  light = shading.sample_lights(
      key_light, config.shading, camera, indices, progress
  )
  plain, is_plain = background_lib.sample(
      key_background, config.background, indices
  )
  jitter = render.ray_jitter(key_jitter, indices, config.render.resolution)
  return Draw(camera, light, plain, is_plain, jitter)


class Phase(NamedTuple):
  """What the steps of a stretch of a run compute; each phase is a program.

  Attributes:
    with_normals: whether views are lit, or normals seen or held to account.
      They cost as much as all else in a render.
    as_latents: whether the denoiser sees normals in place of latents.
  """

  with_normals: bool
  as_latents: bool


def look(config, field, params, drawn, bits, progress, with_normals):
  """Renders views, and weighs what is to be said against the scene.

  Args:
    config: config.Config.
    field: fields.Field.
    params: its parameters and, if it is learnt, the background's.
    drawn: Draw.
    bits: u8[G, G, ceil(G / 8)], occupancy.Occupancy.bits.
    progress: f32[], in [0, 1].
    with_normals: see render.render.
  Returns:
    render.Rendering; weighted sum of the regularisers f32[]; overflow i32[].
  """
  images, regularizers, overflow = render.render(
      field,
      params,
      _behind(config, params, drawn),
      drawn.camera,
      drawn.light,
      bits,
      config.render,
      drawn.jitter,
      progress,
      with_normals,
  )
  return images, _penalty(config.loss, regularizers, progress), overflow


def _behind(config, params, drawn):
  """Backgrounds f32[V, 3] or f32[V, H, W, 3]."""
  if not background_lib.is_learnt(config.background):
    return drawn.plain
  shape = drawn.jitter.shape
  rays = cameras.camera_rays(drawn.camera, *shape[1:])
  network = background_lib.make(config.background)
  learnt = network.color(params["background"], rays.direction)
  return jnp.where(
      drawn.is_plain[:, None, None, None],
      drawn.plain[:, None, None],
      learnt.reshape(*shape, 3),
  )


def _penalty(config, regularizers, progress):
  """f32[], the weighted sum of render.render's regularisers."""
  schedules_by_name = {
      "orientation": config.orientation,
      "opacity": config.opacity,
      "entropy": config.entropy,
      "z_variance": config.z_variance,
  }
  total = jnp.float32(0.0)
  for name, schedule in schedules_by_name.items():
    if schedule.start or schedule.end:  # Else there is nothing to pull back.
      weight = schedules.value(schedule, progress)
      total = total + weight * regularizers[name]
  return total


def phases(config):
  """The phase of each step of a run.

  Args:
    config: config.Config.
  Returns:
    list of Phase.
  """
  steps = config.train.steps
  progress = np.arange(steps, dtype=np.float32) / np.float32(steps)
  as_latents = progress < np.float32(config.guidance.latent_warmup)
  may_be_lit = progress >= np.float32(config.shading.albedo_until)
  is_lit = may_be_lit & (config.shading.shaded_probability > 0)
  orientation = np.asarray(
      schedules.value(config.loss.orientation, progress)
  )
  with_normals = as_latents | is_lit | (orientation > 0)
  return [
      Phase(*pair) for pair in zip(with_normals.tolist(), as_latents.tolist())
  ]
