"""What a scene representation is, and the density that all of them share."""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

ACTIVATIONS = ("exp", "softplus")

# exp(15) fills a ray within a millionth of a unit; float32 holds its square.
_EXP_MAX = 15.0


class Field(NamedTuple):
  """A scene representation as two pure functions.

  Attributes:
    init: key -> params, a dict with the entry "network" and, where there is
      one, "table"; so each can have its own learning rate.
    query: (params, position f32[N, 3], progress f32[]) -> (density f32[N] in
      1/unit, >= 0; albedo f32[N, 3], linear RGB in [0, 1]). Points are
      independent of each other, and twice differentiable in reverse mode.
  """

  init: Callable[[jax.Array], Any]
  query: Callable[..., tuple[jax.Array, jax.Array]]


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
  squared = jnp.sum(position**2, axis=-1)
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
