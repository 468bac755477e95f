"""Pictures of all toys from all sides, and what their captions say.

Pictures are kept in layers (what has its own colour, what is painted, what is
covered): one rendering serves every colour and every background.

Notation: N pictures of S x S pixels, B of them in a batch.
"""

from typing import NamedTuple

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import tqdm

from dreamjax import cameras
from dreamjax import config as config_lib
from dreamjax import shading
from dreamjax.fields import background
from dreamjax.toybox import solids
from dreamjax.toybox import words
from dreamjax.toybox import world

# Standard deviation of the paint's colour, per channel: no two are alike.
_PAINT_JITTER = 0.03
_BATCH = 16


class Pictures(NamedTuple):
  """Rendered toys.

  Attributes:
    layers: u8[N, S, S, 5], Truth.fixed, painted and opacity times 255.
    kind: i32[N], index into words.KINDS.
    azimuth: f32[N], radians, of the camera.
    elevation: f32[N], radians, as well.
  """

  layers: np.ndarray
  kind: np.ndarray
  azimuth: np.ndarray
  elevation: np.ndarray


def make(config: config_lib.Config, seed: int, per_kind: int) -> Pictures:
  """Renders every kind from random sides under random light.

  Cameras and lights are those of the distillation, so that the prior knows
  exactly what it will be shown.

  Args:
    config: its camera, shading and render.resolution are used.
    seed: of cameras and lights.
    per_kind: pictures of each kind; rounded up to a multiple of 16.
  Returns:
    Pictures, ordered by kind.
  """
  size = config.render.resolution
  batches = -(-per_kind // _BATCH)

  @jax.jit
  def batch(toy, key):
    key_camera, key_light = random.split(key)
    indices = jnp.arange(_BATCH, dtype=jnp.int32)
    camera = cameras.sample_cameras(
        key_camera, config.camera, indices, _BATCH
    )
    light = shading.sample_lights(
        key_light, config.shading, camera, indices, 1.0
    )
    truth = world.render(toy, camera, light, size)
    layers = jnp.concatenate([
        truth.fixed, truth.painted[..., None], truth.opacity[..., None]
    ], axis=-1)
    layers = jnp.round(255 * layers).astype(jnp.uint8)
    return layers, camera.azimuth, camera.elevation

  parts = []
  bar = tqdm.tqdm(desc="rendering toys", total=len(words.KINDS) * batches)
  for index, kind in enumerate(words.KINDS):
    toy = solids.make(kind)
    key = random.fold_in(random.key(seed), index)
    for number in range(batches):
      layers, *angles = batch(toy, random.fold_in(key, number))
      parts.append((
          np.asarray(layers),
          np.full(_BATCH, index, np.int32),
          *map(np.asarray, angles),
      ))
      bar.update()
  bar.close()
  return Pictures(*map(np.concatenate, zip(*parts)))


def compose(layers, color, key, config):
  """Paints pictures and puts them on backgrounds of the distillation.

  Args:
    layers: u8[B, S, S, 5].
    color: i32[B], index into words.COLORS.
    key: of paint and background.
    config: config.BackgroundConfig; its plain colours are used.
  Returns:
    f32[B, S, S, 3], linear RGB in [0, 1].
  """
  key_paint, key_background = random.split(key)
  layers = layers.astype(jnp.float32) / 255
  paint = jnp.asarray(list(words.COLORS.values()), jnp.float32)[color]
  paint = paint + _PAINT_JITTER * random.normal(key_paint, paint.shape)
  indices = jnp.arange(color.shape[0], dtype=jnp.int32)
  behind, _ = background.sample(key_background, config, indices)
  image = (
      layers[..., :3]
      + layers[..., 3:4] * jnp.clip(paint, 0.0, 1.0)[:, None, None]
      + (1.0 - layers[..., 4:]) * behind[:, None, None]
  )
  return jnp.clip(image, 0.0, 1.0)


def captions() -> list[str]:
  """Every caption: index `caption_index` of kind, colour and view.

  Both the colour and the view may be left unsaid (their last index), and the
  last caption of all is empty.
  """
  views = (*words.VIEWS, words.OVERHEAD, "")
  return [
      words.caption(kind, color, view)
      for kind in words.KINDS
      for color in (*words.COLORS, "")
      for view in views
  ] + [""]


def caption_index(kind, color, view):
  """Index into `captions`; arrays broadcast."""
  subject = kind * (len(words.COLORS) + 1) + color
  return subject * (len(words.VIEWS) + 2) + view
