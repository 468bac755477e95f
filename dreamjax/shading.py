"""Light and material: one lamp per view over a diffuse surface."""

from typing import NamedTuple

import jax
from jax import random
import jax.numpy as jnp

from dreamjax import vectors

KINDS = ("point", "directional")


class Light(NamedTuple):
  """One lamp per view (or, gathered, per sample).

  Attributes:
    position: f32[V, 3], a point light's position or, infinitely far away, the
      direction towards the light.
    finite: f32[V], 1 for a point light, 0 for a directional one.
    ambient: f32[V], share of light that comes from everywhere; 1 is unlit.
    textureless: bool[V], whether the material is white.
  """

  position: jax.Array
  finite: jax.Array
  ambient: jax.Array
  textureless: jax.Array


def unlit(num_views):
  """Light under which everything shows its own colour.

  Args:
    num_views: V.
  Returns:
    Light.
  """
  return Light(
      position=jnp.zeros((num_views, 3), jnp.float32),
      finite=jnp.zeros(num_views, jnp.float32),
      ambient=jnp.ones(num_views, jnp.float32),
      textureless=jnp.zeros(num_views, bool),
  )


def sample_lights(key, config, camera, indices, progress):
  """Random lamps near the cameras, and which views are lit at all.

  Every view tosses its own coins: albedo, shaded or textureless (DreamFusion,
  section 3.1 and appendix A.2).

  Args:
    key: the step's key for lights.
    config: config.ShadingConfig.
    camera: cameras.Camera of V views.
    indices: i32[V], global numbers of the views.
    progress: f32[], in [0, 1]; nothing is lit before `albedo_until`.
  Returns:
    Light.
  Raises:
    ValueError: the config names an unknown kind of light.
  """
  if config.light not in KINDS:
    raise ValueError(
        f"ShadingConfig: light is {config.light!r}, want one of {KINDS}."
    )
  may_be_lit = jnp.asarray(progress, jnp.float32) >= config.albedo_until

  def sample(index, origin):
    key_uniform, key_normal = random.split(random.fold_in(key, index))
    number = random.uniform(key_uniform, (4,))
    offset = config.light_jitter * random.normal(key_normal, (3,))
    offset = offset.at[2].add(config.light_lift)
    direction = origin + offset
    direction = direction / jnp.linalg.norm(direction)
    near, far = config.light_distance
    distance = near + number[0] * (far - near)
    low, high = config.ambient
    ambient = low + number[1] * (high - low)
    lit = may_be_lit & (number[2] < config.shaded_probability)
    textureless = number[3] < config.textureless_probability
    return Light(
        position=distance * direction,
        finite=jnp.float32(config.light == "point"),
        ambient=jnp.where(lit, ambient, 1.0),
        textureless=lit & textureless,
    )

  return jax.vmap(sample)(jnp.asarray(indices, jnp.int32), camera.origin)


def shade(albedo, normal, position, light):
  """Lambert's law: albedo (ambient + (1 - ambient) max(0, n . l)).

  Args:
    albedo: f32[..., 3], linear RGB in [0, 1].
    normal: f32[..., 3], outward, of length one (or shorter where undefined).
    position: f32[..., 3], units.
    light: Light whose leaves have the same leading dimensions.
  Returns:
    f32[..., 3], linear RGB in [0, 1].
  """
  towards = light.position - vectors.scale(light.finite, position)
  # Inside the lamp itself the direction is undefined; it then counts as dark.
  squared = jnp.maximum(vectors.dot(towards, towards), 1e-12)
  cosine = vectors.dot(normal, towards) * jax.lax.rsqrt(squared)
  diffuse = jnp.maximum(cosine, 0.0)
  intensity = light.ambient + (1.0 - light.ambient) * diffuse
  material = jnp.where(light.textureless[..., None], 1.0, albedo)
  return vectors.scale(intensity, material)
