"""Classifier-free guidance (Ho and Salimans 2022)."""

import jax


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
