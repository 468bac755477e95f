"""From rays to pixels: march, query the field, shade, composite.

Notation: V views of H x W pixels, R = V H W rays, M sample slots. Samples lie
packed in ray order, empty slots at the end, so that work grows with what the
rays really meet and not with the budget.
"""

from typing import NamedTuple

import jax
from jax import ad_checkpoint
from jax import lax
from jax import random
import jax.numpy as jnp

from dreamjax import cameras
from dreamjax import chunks
from dreamjax import losses
from dreamjax import shading
from dreamjax import vectors
from dreamjax.ops import composite
from dreamjax.ops import march

# Rays of an evaluation view marched at a time, each with all its slots.
_BLOCK = 2**13
# Name of the density's slope: three numbers a sample, and dear to recompute.
_SLOPE = "slope"
# Rays fainter than this have no depth.
_VISIBLE = 1e-3


class Rendering(NamedTuple):
  """Images of V views.

  Attributes:
    color: f32[V, H, W, 3], linear RGB, background included.
    opacity: f32[V, H, W], in [0, 1].
    depth: f32[V, H, W], expected distance to the camera's origin, units; 0
      where nothing is seen.
    normal: f32[V, H, W, 3], expected normal in the world, weighted and not
      renormalised: 0 in the background, and everywhere without normals.
  """

  color: jax.Array
  opacity: jax.Array
  depth: jax.Array
  normal: jax.Array


class _Rays(NamedTuple):
  """What samples need to know about their rays.

  Attributes:
    origin: f32[R, 3].
    direction: f32[R, 3].
    jitter: f32[R], in [0, 1).
    view: i32[R].
  """

  origin: jax.Array
  direction: jax.Array
  jitter: jax.Array
  view: jax.Array


class _Pixels(NamedTuple):
  """Composited rays, without background.

  Attributes:
    color: f32[R, 3].
    opacity: f32[R].
    depth: f32[R].
    normal: f32[R, 3].
    first: f32[R], sum of weight z, with z counted from the ray's closest point
      to the origin.
    second: f32[R], sum of weight z^2.
  """

  color: jax.Array
  opacity: jax.Array
  depth: jax.Array
  normal: jax.Array
  first: jax.Array
  second: jax.Array


def ray_jitter(key, indices, size):
  """Where in its first step each ray starts to sample.

  Args:
    key: the step's key for jitter.
    indices: i32[V], global numbers of the views.
    size: pixels per side.
  Returns:
    f32[V, size, size], in [0, 1).
  """
  return jax.vmap(
      lambda index: random.uniform(random.fold_in(key, index), (size, size))
  )(jnp.asarray(indices, jnp.int32))


def _query(field, params, position, progress, with_normals, count):
  """Density f32[N], albedo f32[N, 3] and normal f32[N, 3] of points."""
  if not with_normals:
    density, albedo = field.query(params, position, progress, count)
    return density, albedo, jnp.zeros_like(albedo)
  density, albedo, slope = field.query_slope(params, position, progress, count)
  slope = ad_checkpoint.checkpoint_name(slope, _SLOPE)
  # Where the density is flat the normal fades to zero instead of spinning.
  length = lax.rsqrt(vectors.dot(slope, slope) + 1e-6)
  return density, albedo, vectors.scale(-length, slope)


def _render_rays(
    field, params, rays, light, bits, config, progress, with_normals, budget
):
  """Samples and composites rays.

  Returns:
    _Pixels; losses.orientation f32[]; overflow i32[].
  """
  samples = march.march(
      rays.origin,
      rays.direction,
      rays.jitter,
      bits,
      step=2 * config.bound / config.steps,
      bound=config.bound,
      max_samples=budget,
  )
  middle = -jnp.sum(rays.origin * rays.direction, axis=-1)

  def evaluate(slots, count):
    distance, ray = slots
    direction = rays.direction[ray]
    position = rays.origin[ray] + distance[:, None] * direction
    density, color, normal = _query(
        field, params, position, progress, with_normals, count
    )
    if with_normals:
      lamp = jax.tree.map(lambda leaf: leaf[rays.view[ray]], light)
      color = shading.shade(color, normal, position, lamp)
    z = distance - middle[ray]
    facing = vectors.dot(normal, direction)
    return density, color, normal, z, facing

  density, color, normal, z, facing = chunks.map_slots(
      evaluate,
      samples.offset[-1],
      (samples.distance, samples.ray),
      config.samples_per_chunk,
      remember=(_SLOPE,),
  )
  total = lambda value: composite.composite(
      density, value, samples.width, samples.offset
  )
  color, opacity, weight = total(color)
  # Apart, since most losses ask nothing of it, and then it is not computed.
  moments, _, _ = total(vectors.join((z, z**2)))
  first, second = vectors.split(moments)
  seen = opacity > _VISIBLE
  depth = middle + first / jnp.where(seen, opacity, 1.0)
  pixels = _Pixels(
      color=color,
      opacity=opacity,
      depth=jnp.where(seen, depth, 0.0),
      normal=total(normal)[0] if with_normals else jnp.zeros_like(color),
      first=first,
      second=second,
  )
  orientation = losses.orientation(weight, facing, opacity.shape[0])
  return pixels, orientation, samples.overflow


def _rays(camera, height, width, jitter):
  """_Rays of all pixels; `jitter` is f32[V, H, W]."""
  rays = cameras.camera_rays(camera, height, width)
  view = jnp.arange(camera.fov.shape[0], dtype=jnp.int32)
  return _Rays(
      rays.origin,
      rays.direction,
      jitter.reshape(-1),
      jnp.repeat(view, height * width),
  )


def _images(pixels, background, shape):
  """Rendering of shape (V, H, W) over f32[V, 3] or f32[V, H, W, 3]."""
  if background.ndim == 2:
    background = background[:, None, None]
  image = jax.tree.map(
      lambda leaf: leaf.reshape(shape + leaf.shape[1:]), pixels
  )
  behind = (1.0 - image.opacity[..., None]) * background
  return Rendering(
      image.color + behind, image.opacity, image.depth, image.normal
  )


def render(
    field,
    params,
    background,
    camera,
    light,
    bits,
    config,
    jitter,
    progress,
    with_normals,
):
  """Training views.

  Args:
    field: fields.Field.
    params: its parameters.
    background: f32[V, 3] or f32[V, H, W, 3], seen behind the scene.
    camera: cameras.Camera of V views.
    light: shading.Light of V views; ignored without normals.
    bits: u8[G, G, ceil(G / 8)], occupancy.Occupancy.bits.
    config: config.RenderConfig; H = W = resolution.
    jitter: f32[V, H, W], `ray_jitter`.
    progress: f32[], in [0, 1].
    with_normals: whether normals are computed; without them every view shows
      its albedo and the orientation loss is 0. Static.
  Returns:
    Rendering;
    regularisers, dict of f32[]: "orientation", "opacity", "entropy" and
    "z_variance", each unweighted (`losses`);
    overflow i32[], samples that exceeded the budget and are missing.
  """
  size = config.resolution
  num_views = camera.fov.shape[0]
  rays = _rays(camera, size, size, jitter)
  budget = config.samples_per_ray * num_views * size * size
  pixels, orientation, overflow = _render_rays(
      field, params, rays, light, bits, config, progress, with_normals, budget
  )
  regularizers = {
      "orientation": orientation,
      "opacity": losses.opacity(pixels.opacity),
      "entropy": losses.entropy(pixels.opacity),
      "z_variance": losses.z_variance(
          pixels.first, pixels.second, pixels.opacity
      ),
  }
  images = _images(pixels, background, (num_views, size, size))
  return images, regularizers, overflow


def render_views(
    field,
    params,
    background,
    camera,
    light,
    bits,
    config,
    progress,
    size,
    with_normals,
):
  """Views of any number and size, for the eye and not for gradients.

  Rays are taken in blocks that have a slot for every candidate: the memory is
  bounded, and no sample is ever missing.

  Args:
    field: fields.Field.
    params: its parameters.
    background: f32[V, 3] or f32[V, size, size, 3].
    camera: cameras.Camera of V views.
    light: shading.Light of V views.
    bits: u8[G, G, ceil(G / 8)], as in `render`.
    config: config.RenderConfig; its resolution and budget do not matter.
    progress: f32[].
    size: pixels per side. Static.
    with_normals: as in `render`. Static.
  Returns:
    Rendering.
  """
  shape = (camera.fov.shape[0], size, size)
  rays = _rays(camera, size, size, jnp.full(shape, 0.5, jnp.float32))
  num_rays = rays.view.shape[0]
  block = min(num_rays, _BLOCK)
  num_blocks = -(-num_rays // block)
  # The last block is filled up with copies of its last ray.
  split = lambda leaf: jnp.pad(
      leaf,
      [(0, num_blocks * block - num_rays)] + [(0, 0)] * (leaf.ndim - 1),
      mode="edge",
  ).reshape((num_blocks, block) + leaf.shape[1:])

  def step(rays):
    return _render_rays(
        field, params, rays, light, bits, config, progress, with_normals,
        block * config.steps,
    )[0]

  pixels = jax.tree.map(
      lambda leaf: leaf.reshape((-1,) + leaf.shape[2:])[:num_rays],
      lax.map(step, jax.tree.map(split, rays)),
  )
  return _images(pixels, background, shape)
