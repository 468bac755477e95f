"""Exact pictures of the toys, by closed-form ray casting.

Notation: V views of H x W pixels, R rays.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dreamjax import cameras
from dreamjax import shading
from dreamjax.toybox import solids

_LEAST = 1e-9  # Empty pixels are divided by this.


class Truth(NamedTuple):
  """Pictures of V views in layers, so that paint and background come later.

  Attributes:
    fixed: f32[V, H, W, 3], lit colour of the parts with their own, linear RGB
      times coverage.
    painted: f32[V, H, W], light on the painted parts, times coverage.
    opacity: f32[V, H, W], covered share of the pixel.
    front: f32[V, H, W], share covered by the front feature.
    depth: f32[V, H, W], mean distance to the camera, units; 0 where empty.
    normal: f32[V, H, W, 3], world, times coverage.
    part: i32[V, H, W], number of the nearest part; -1 where empty.
  """

  fixed: jax.Array
  painted: jax.Array
  opacity: jax.Array
  front: jax.Array
  depth: jax.Array
  normal: jax.Array
  part: jax.Array


def render(toy, camera, light, size, supersample=2):
  """Exact pictures of a toy.

  Args:
    toy: solids.Toy.
    camera: cameras.Camera of V views.
    light: shading.Light of V views; its `textureless` is ignored.
    size: pixels per side, H = W. Static.
    supersample: rays per pixel and side. Static.
  Returns:
    Truth.
  """
  toy = jax.tree.map(jnp.asarray, toy)
  fine = size * supersample
  views = camera.fov.shape[0]
  rays = cameras.camera_rays(camera, fine, fine)
  distance, slot = solids.trace(toy, rays.origin.T, rays.direction.T)
  hit = slot >= 0
  slot = jnp.maximum(slot, 0)
  depth = jnp.where(hit, distance, 0.0)
  position = rays.origin + depth[:, None] * rays.direction
  normal = solids.normals(toy, position, slot)
  lamp = jax.tree.map(
      lambda leaf: jnp.repeat(leaf, fine * fine, axis=0),
      light._replace(textureless=jnp.zeros(views, bool)),
  )
  white = jnp.ones_like(position)
  intensity = shading.shade(white, normal, position, lamp)[:, 0]
  coverage = hit.astype(jnp.float32)
  painted = toy.painted[slot]

  def pixels(values):
    """Means over the rays of a pixel."""
    blocks = values.reshape(
        (views, size, supersample, size, supersample) + values.shape[1:]
    )
    return blocks.mean((2, 4))

  covered = pixels(coverage)
  own = ((1.0 - painted) * intensity * coverage)[:, None] * toy.color[slot]
  # The part that is nearest in the pixel: neither order nor mean of numbers.
  grouped = lambda values: values.reshape(
      views, size, supersample, size, supersample
  ).swapaxes(2, 3).reshape(views, size, size, -1)
  nearest = jnp.argmin(grouped(distance), axis=-1, keepdims=True)
  part = jnp.take_along_axis(grouped(jnp.where(hit, slot, -1)), nearest, -1)
  return Truth(
      fixed=pixels(own),
      painted=pixels(painted * intensity * coverage),
      opacity=covered,
      front=pixels(toy.front[slot] * coverage),
      depth=pixels(depth) / jnp.maximum(covered, _LEAST),
      normal=pixels(normal * coverage[:, None]),
      part=part[..., 0],
  )


def paint(truth, color, background):
  """Pictures in a colour, over a background.

  Args:
    truth: Truth of V views.
    color: f32[3] or f32[V, 3], linear RGB of the painted parts.
    background: f32[3] or f32[V, 3], linear RGB.
  Returns:
    f32[V, H, W, 3], linear RGB.
  """
  spread = lambda value: jnp.asarray(value)[..., None, None, :]
  behind = (1.0 - truth.opacity)[..., None] * spread(background)
  return truth.fixed + truth.painted[..., None] * spread(color) + behind
