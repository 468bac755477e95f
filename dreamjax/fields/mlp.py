"""DreamFusion's field: a residual network over an integrated encoding."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from dreamjax import schedules
from dreamjax.fields import field


def encode(position, variance, frequencies):
  """Integrated positional encoding (Barron et al. 2021, Eq. 14), isotropic.

  The expectation of sin(2^l x) and cos(2^l x) over x ~ N(position, variance):
  high frequencies fade where the variance is large.

  Args:
    position: f32[N, 3], units.
    variance: f32[], units^2 (DreamFusion's lambda_Sigma).
    frequencies: number of octaves L, l in [0, L).
  Returns:
    f32[N, 6 L].
  """
  scale = 2.0 ** jnp.arange(frequencies, dtype=jnp.float32)
  angle = position[:, None, :] * scale[:, None]
  fade = jnp.exp(-0.5 * variance * scale**2)[:, None]
  waves = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
  return (fade * waves).reshape(position.shape[0], 6 * frequencies)


class _Network(nn.Module):
  """Residual blocks with layer norms: encoding -> (density, RGB)."""

  width: int
  layers: int

  @nn.compact
  def __call__(self, encoding):
    hidden = nn.Dense(self.width)(encoding)
    for _ in range(self.layers):
      inner = nn.silu(nn.Dense(self.width)(nn.LayerNorm()(hidden)))
      hidden = hidden + nn.Dense(self.width)(inner)
    # Zero at first, so that the scene starts as the plain blob.
    last = nn.Dense(4, kernel_init=nn.initializers.zeros)
    return last(nn.silu(nn.LayerNorm()(hidden)))


def make(config, bound):
  """A network over scene coordinates (DreamFusion, appendix A.2).

  Args:
    config: config.FieldConfig.
    bound: unused; the encoding has no borders.
  Returns:
    field.Field.
  Raises:
    ValueError: the config names an unknown activation.
  """
  del bound
  field.check(config)
  network = _Network(config.width, config.layers)

  def init(key):
    encoding = jnp.zeros((1, 6 * config.frequencies), jnp.float32)
    return {"network": network.init(key, encoding)["params"]}

  def query(params, position, progress, count=None):
    del count  # XLA computes all or nothing.
    variance = schedules.value(config.ipe_variance, progress)
    encoding = encode(position, variance, config.frequencies)
    raw = network.apply({"params": params["network"]}, encoding)
    return (
        field.density(raw[:, 0], position, config),
        jax.nn.sigmoid(raw[:, 1:]),
    )

  return field.Field(init, query, field.with_slope(query))
