"""What a scene representation is, and the density that all of them share."""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from dreamjax import vectors

ACTIVATIONS = ("exp", "softplus")

# exp(15) fills a ray within a millionth of a unit; float32 holds its square.
_EXP_MAX = 15.0


class Field(NamedTuple):
  """A scene representation as pure functions.

  Attributes:
    init: key -> params, a dict with the entry "network" and, where there is
      one, "table"; so each can have its own learning rate.
    query: (params, position f32[N, 3], progress f32[], count i32[] or None)
      -> (density f32[N] in 1/unit, >= 0; albedo f32[N, 3], linear RGB in
      [0, 1]). Points are independent of each other, and twice differentiable
      in reverse mode. A field may make it short with points from number
      `count` on, which then get any finite density and albedo.
    query_slope: the same arguments -> (density, albedo, slope f32[N, 3] in
      1/unit^2: the derivative of each density by its position). Once
      differentiable by params.
  """

  init: Callable[[jax.Array], Any]
  query: Callable[..., tuple[jax.Array, jax.Array]]
  query_slope: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]


def check(config):
  """Raises ValueError if the config names an unknown activation."""
  if config.activation not in ACTIVATIONS:
    raise ValueError(
        f"FieldConfig: activation is {config.activation!r}, want one of"
        f" {ACTIVATIONS}."
    )


def blob(position, config):
  """The ball of density that every scene starts from.

  For "exp" a Gaussian (DreamFusion, appendix A.2; like the public ports, in
  front of the activation), for "softplus" a cone (Magic3D, section 4).

  Args:
    position: f32[N, 3], units.
    config: config.FieldConfig.
  Returns:
    f32[N].
  """
  squared = vectors.dot(position, position)
  if config.activation == "exp":
    return config.blob_scale * jnp.exp(squared / (-2 * config.blob_width**2))
  # The tip of the cone is cut: its slope has no direction at the centre.
  radius = jnp.sqrt(jnp.maximum(squared, 1e-8))
  return config.blob_scale * (1 - radius / config.blob_width)


def density(raw, position, config):
  """The network's density output, with the blob, through the activation.

  Args:
    raw: f32[N].
    position: f32[N, 3], units.
    config: config.FieldConfig.
  Returns:
    f32[N], 1/unit, >= 0. Above 15 exp goes on as its tangent: finite, and
    still with a slope.
  """
  raw = raw + blob(position, config)
  if config.activation == "exp":
    beyond = jnp.maximum(raw - _EXP_MAX, 0.0)
    return jnp.exp(jnp.minimum(raw, _EXP_MAX)) * (1 + beyond)
  return jax.nn.softplus(raw)


def density_slope(raw, raw_slope, position, config):
  """`density`, and its derivative by the position.

  Args:
    raw: f32[N].
    raw_slope: f32[N, 3], the derivative of raw, 1/unit.
    position: f32[N, 3], units.
    config: config.FieldConfig.
  Returns:
    density f32[N], 1/unit; slope f32[N, 3], 1/unit^2.
  """
  result, pull = jax.vjp(
      lambda raw, position: density(raw, position, config), raw, position
  )
  by_raw, by_position = pull(jnp.ones_like(result))
  return result, vectors.scale(by_raw, raw_slope) + by_position


def with_slope(query):
  """A `Field.query_slope` for any `Field.query`.

  Args:
    query: see Field.
  Returns:
    Function of the same arguments.
  """

  def query_slope(params, position, progress, count=None):
    result, pull, albedo = jax.vjp(
        lambda position: query(params, position, progress, count),
        position,
        has_aux=True,
    )
    # Points do not know each other: one pull gives the slope at all of them.
    (slope,) = pull(jnp.ones_like(result))
    return result, albedo, slope

  return query_slope
