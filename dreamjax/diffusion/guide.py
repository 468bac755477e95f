"""Classifier-free guidance (Ho and Salimans 2022), and Perp-Neg before it."""

from typing import Sequence

import jax
import jax.numpy as jnp


def classifier_free(
    conditional: jax.Array, unconditional: jax.Array, scale: float | jax.Array
) -> jax.Array:
  """u + s (c - u): 0 ignores the text, 1 follows it, more exaggerates it.

  The only guidance convention of this package; DreamFusion's omega is s - 1.

  Args:
    conditional: [...], prediction with the text.
    unconditional: [...], prediction without, or with a negative prompt.
    scale: s; broadcasts against both.
  Returns:
    [...], the same kind of prediction (noise, velocity or original).
  """
  return unconditional + scale * (conditional - unconditional)


def keep_off(
    conditional: jax.Array,
    unconditional: jax.Array,
    opposed: Sequence[jax.Array],
    weight: jax.Array,
) -> jax.Array:
  """The prediction with the text, moved away from those with other texts.

  c - sum_i w_i d_i', where d_i' is what of d_i = o_i - u is perpendicular to
  c - u: what the texts share stays (Perp-Neg, Armandpour et al. 2023).

  Args:
    conditional: c, [B, ...].
    unconditional: u, [B, ...].
    opposed: o_i, M of [B, ...], predictions with the texts to keep off.
    weight: w_i, [M, B], >= 0.
  Returns:
    [B, ...], to be guided in place of c.
  """
  axes = tuple(range(1, conditional.ndim))
  column = lambda value: jnp.expand_dims(value, axes)
  direction = conditional - unconditional
  square = jnp.maximum(jnp.sum(direction**2, axes), 1e-12)
  for other, strength in zip(opposed, weight):
    difference = other - unconditional
    along = jnp.sum(difference * direction, axes) / square
    perpendicular = difference - column(along) * direction
    conditional = conditional - column(strength) * perpendicular
  return conditional
