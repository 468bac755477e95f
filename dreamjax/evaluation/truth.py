"""A finished toy against its truth: 24 views of both, as numbers and as a
picture.

Notation: E elevations, A azimuths, H W pixels.
"""

import functools
import json
import math
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamjax import shading
from dreamjax.evaluation import metrics
from dreamjax.outputs import files
from dreamjax.outputs import images
from dreamjax.outputs import sheet
from dreamjax.toybox import solids
from dreamjax.toybox import words
from dreamjax.toybox import world

ELEVATIONS_DEGREES = (0.0, 30.0)
AZIMUTHS = 12
_WHITE = (1.0, 1.0, 1.0)
# Rays per pixel and side: an odd number, so that no pixel is covered by half
# and a mask is as large as its toy.
_SUPERSAMPLE = 3


class Views(NamedTuple):
  """Unlit views on white.

  Attributes:
    color: f32[E, A, H, W, 3], linear RGB.
    mask: bool[E, A, H, W], whether half of the pixel is covered.
    feature: bool[E, A, H, W], whether half of it is front feature.
  """

  color: np.ndarray
  mask: np.ndarray
  feature: np.ndarray


def camera():
  """cameras.Camera of the E A views, elevation by elevation."""
  elevation, azimuth = np.meshgrid(
      np.radians(ELEVATIONS_DEGREES),
      np.arange(AZIMUTHS) * (2 * np.pi / AZIMUTHS),
      indexing="ij",
  )
  return sheet.orbit(
      azimuth.ravel().astype(np.float32), elevation.ravel().astype(np.float32)
  )


@functools.partial(jax.jit, static_argnums=2)
def _render(toy, color, size):
  views = camera()
  light = shading.unlit(views.fov.shape[0])
  truth = world.render(toy, views, light, size, _SUPERSAMPLE)
  return world.paint(truth, color, jnp.array(_WHITE)), truth


def true_views(caption: words.Caption, size: int) -> Views:
  """What the toy really looks like.

  Args:
    caption: kind and colour.
    size: pixels per side.
  """
  color = jnp.array(words.COLORS[caption.color], jnp.float32)
  image, truth = _render(solids.make(caption.kind), color, size)
  return _views(image, truth.opacity, truth.front)


def _views(color, opacity, front):
  shape = (len(ELEVATIONS_DEGREES), AZIMUTHS)
  split = lambda array: np.asarray(array).reshape(shape + array.shape[1:])
  return Views(split(color), split(opacity) > 0.5, split(front) > 0.5)


def judge(render_views, text: str) -> tuple[metrics.Judgement, Views, Views]:
  """Compares a scene with the toy that its prompt names.

  Args:
    render_views: see sheet.render_all.
    text: the prompt.
  Returns:
    The judgement, the scene's views and the true ones.
  Raises:
    words.UnknownWords: the prompt names no toy.
  """
  caption = words.parse(text)
  seen = sheet.render_all(render_views, camera())
  found = _views(seen.color, seen.opacity, np.zeros_like(seen.opacity))
  true = true_views(caption, seen.opacity.shape[-1])
  judgement = metrics.judge(
      true.color, true.mask, true.feature, found.color, found.mask
  )
  return judgement, found, true


def write(folder, render_views, text: str) -> list[tuple[pathlib.Path, str]]:
  """Writes evaluation.json and evaluation.png.

  Args:
    folder: where to; it must exist.
    render_views: see sheet.render_all.
    text: the prompt.
  Returns:
    List of (path, what it is).
  Raises:
    words.UnknownWords: the prompt names no toy.
  """
  folder = pathlib.Path(folder)
  judgement, found, true = judge(render_views, text)
  record = {"prompt": text} | judgement._asdict()
  content = json.dumps(_plain(record), indent=2) + "\n"
  files.write_bytes(folder / "evaluation.json", content.encode())
  grid = images.image_grid(
      np.concatenate([
          views.color[row]
          for row in range(len(ELEVATIONS_DEGREES))
          for views in (true, found)
      ]),
      columns=AZIMUTHS,
      column_labels=[
          f"{360 * k // AZIMUTHS}\N{DEGREE SIGN}" for k in range(AZIMUTHS)
      ],
      row_labels=["truth", text] * len(ELEVATIONS_DEGREES),
  )
  images.save_image(folder / "evaluation.png", grid)
  summary = (
      f"silhouette IoU {judgement.iou:.3f} (best yaw"
      f" {judgement.iou_best:.3f}), masked PSNR {judgement.psnr:.1f} dB"
      f"{', turned' if judgement.turned else ''}"
  )
  return [
      (folder / "evaluation.json", summary),
      (folder / "evaluation.png", "truth above, result below"),
  ]


def _plain(record: dict[str, Any]) -> dict[str, Any]:
  """JSON has no NaN and no infinity."""
  return {
      name: None if isinstance(x, float) and not math.isfinite(x) else x
      for name, x in record.items()
  }
