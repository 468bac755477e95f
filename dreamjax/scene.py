"""What a run has made, for the eye and for meshes."""

import functools
from typing import Callable, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dreamjax import fields
from dreamjax import render
from dreamjax import shading

# A lamp over the viewer's left shoulder, in the camera's right, up, backward.
_LAMP = (-0.5, 0.7, 1.0)
_AMBIENT = 0.3


class Views(NamedTuple):
  """Renderings on white.

  Attributes:
    color: f32[V, H, W, 3], without light.
    shaded: f32[V, H, W, 3], lit from over the camera.
    normal: f32[V, H, W, 3], world; 0 where there is nothing.
    opacity: f32[V, H, W], in [0, 1].
  """

  color: jax.Array
  shaded: jax.Array
  normal: jax.Array
  opacity: jax.Array


class Scene(NamedTuple):
  """The object of one prompt, made of the mean of its parameters.

  Attributes:
    render_views: cameras.Camera of V views -> Views.
    query: position f32[N, 3] -> (density f32[N], 1/unit; albedo f32[N, 3]).
  """

  render_views: Callable[..., Views]
  query: Callable[..., tuple[jax.Array, jax.Array]]


def make(config, state, index):
  """The scene of a prompt.

  Args:
    config: config.Config.
    state: train state on the host, with a leading axis of prompts.
    index: of the prompt.
  Returns:
    Scene; what it calls is compiled once for all scenes of a config.
  """
  params, bits, step = jax.tree.map(
      lambda leaf: jnp.asarray(leaf[index]),
      (state.ema, state.occupancy.bits, state.step),
  )
  progress = jnp.minimum(np.float32(step) / np.float32(config.train.steps), 1.0)
  return Scene(
      functools.partial(
          _render, config.field, config.render, config.output.image_size,
          params, bits, progress,
      ),
      functools.partial(
          _query, config.field, config.render.bound, params, progress
      ),
  )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _render(field, config, size, params, bits, progress, camera):
  """Views; light is added to pixels, for which one pass of rays is enough."""
  num_views = camera.fov.shape[0]
  images = render.render_views(
      fields.make(field, config.bound),
      params,
      jnp.ones((num_views, 3), jnp.float32),
      camera,
      shading.unlit(num_views),
      bits,
      config,
      progress,
      size,
      with_normals=True,
  )
  lamp = camera.rotation @ jnp.array(_LAMP, jnp.float32)
  light = shading.unlit(num_views)._replace(
      position=lamp, ambient=jnp.full(num_views, _AMBIENT, jnp.float32)
  )
  light = jax.tree.map(lambda leaf: leaf[:, None, None], light)
  white = 1.0 - images.opacity[..., None]
  squared = jnp.sum(images.normal**2, axis=-1, keepdims=True)
  normal = images.normal * lax.rsqrt(squared + 1e-6)
  shaded = white + shading.shade(
      images.color - white, normal, jnp.zeros_like(normal), light
  )
  return Views(images.color, shaded, images.normal, images.opacity)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _query(field, bound, params, progress, position):
  return fields.make(field, bound).query(params, position, progress)
