"""Contact sheets: a scene from all sides in one picture.

What renders is a function of cameras.Camera with V views that gives `Views`;
it is always called with the same V, so that it compiles once.
"""

from typing import NamedTuple

import jax
import numpy as np

from dreamjax import cameras
from dreamjax.outputs import images

VIEWS_PER_CALL = 3  # divides the 9 views of a sheet and most turntables
_ELEVATION = np.radians(15.0)
_FOV = np.radians(40.0)
_AZIMUTHS = 8
_PREVIEW_AZIMUTHS = 3


class Views(NamedTuple):
  """Renderings of one scene on white.

  Attributes:
    color: f32[V, H, W, 3], without light.
    shaded: f32[V, H, W, 3], lit.
    normal: f32[V, H, W, 3], world; of any length, 0 where there is nothing.
    opacity: f32[V, H, W], in [0, 1].
  """

  color: np.ndarray
  shaded: np.ndarray
  normal: np.ndarray
  opacity: np.ndarray


def orbit(azimuth, elevation):
  """Cameras that see the whole unit ball, as all outputs use them.

  Args:
    azimuth: f32[V], radians.
    elevation: f32[V] or a number, radians.
  Returns:
    cameras.Camera of V views, on the host.
  """
  return jax.device_get(_orbit(azimuth, elevation))


@jax.jit  # For its operations one by one took seconds to compile.
def _orbit(azimuth, elevation):
  return cameras.orbit(azimuth, elevation, _FOV, cameras.frame_distance(_FOV))


def render_all(render_views, camera):
  """Renders any number of views, `VIEWS_PER_CALL` at a time.

  Args:
    render_views: function of cameras.Camera that gives `Views` (or anything
      with these attributes).
    camera: cameras.Camera of V views.
  Returns:
    Views of V views.
  """
  count = len(camera.fov)
  parts = []
  for start in range(0, count, VIEWS_PER_CALL):
    # The last call repeats the last view.
    index = np.minimum(np.arange(start, start + VIEWS_PER_CALL), count - 1)
    part = render_views(jax.tree.map(lambda x: x[index], camera))
    parts.append(Views(*(
        np.asarray(getattr(part, name), np.float32) for name in Views._fields
    )))
  return Views(*(np.concatenate(arrays)[:count] for arrays in zip(*parts)))


def normal_colors(normal, opacity):
  """World normals as colours, (n + 1) / 2, on white.

  Args:
    normal: f32[..., 3], of any length.
    opacity: f32[...].
  Returns:
    f32[..., 3] in [0, 1].
  """
  length = np.linalg.norm(normal, axis=-1, keepdims=True)
  unit = normal / np.maximum(length, 1e-6)
  return 1 + opacity[..., None] * ((unit + 1) / 2 - 1)


def write_sheet(path, render_views, title):
  """Eight azimuths and the view from above; colour, shaded, normal, opacity.

  Args:
    path: of the PNG file.
    render_views: see `render_all`.
    title: words above the sheet.
  """
  azimuth = np.arange(_AZIMUTHS + 1) % _AZIMUTHS * (2 * np.pi / _AZIMUTHS)
  elevation = np.where(np.arange(_AZIMUTHS + 1) < _AZIMUTHS, _ELEVATION,
                       np.pi / 2)
  views = render_all(render_views, orbit(azimuth, elevation))
  opacity = np.repeat(views.opacity[..., None], 3, axis=-1)
  grid = images.image_grid(
      np.concatenate([
          views.color,
          views.shaded,
          normal_colors(views.normal, views.opacity),
          opacity,
      ]),
      columns=_AZIMUTHS + 1,
      column_labels=[
          *(_azimuth_label(value) for value in azimuth[:-1]), "overhead"
      ],
      row_labels=["colour", "shaded", "normal", "opacity"],
      title=title,
  )
  images.save_image(path, grid)


def write_preview(path, render_views, title):
  """A small sheet for a run in progress: three azimuths, colour and normal.

  Args:
    path: of the PNG file.
    render_views: see `render_all`.
    title: words above the sheet.
  """
  azimuth = np.arange(_PREVIEW_AZIMUTHS) * (2 * np.pi / _PREVIEW_AZIMUTHS)
  views = render_all(render_views, orbit(azimuth, _ELEVATION))
  normal = normal_colors(views.normal, views.opacity)
  grid = images.image_grid(
      np.concatenate([views.color, normal]),
      columns=_PREVIEW_AZIMUTHS,
      column_labels=[_azimuth_label(value) for value in azimuth],
      title=title,
  )
  images.save_image(path, grid)


def _azimuth_label(azimuth):
  """Degrees, and the name of the side where it has one."""
  degrees = int(round(np.degrees(azimuth)))
  name = {0: "front", 90: "left", 180: "back", 270: "right"}.get(degrees)
  return f"{degrees}\N{DEGREE SIGN} {name}" if name else (
      f"{degrees}\N{DEGREE SIGN}"
  )
