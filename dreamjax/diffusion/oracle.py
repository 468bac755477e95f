"""The exact denoiser of a world that holds finitely many images.

Where clean data is one of K known vectors, chosen with known probabilities,
the noisy data is a mixture of K Gaussians and the best denoiser has a closed
form (Karras et al. 2022, appendix B.3). It needs no training and no weights,
so it checks the whole road from camera to gradient deterministically.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Oracle(NamedTuple):
  """The world, in the place of a denoiser's parameters.

  Attributes:
    vectors: f32[K, ...], the clean data.
    alphas_cumprod: f32[T], of the noise schedule.
    temperature: f32[], widens the mixture's components; 1 is exact, more keeps
      the posterior from freezing on one vector in high dimensions.
  """

  vectors: jax.Array
  alphas_cumprod: jax.Array
  temperature: jax.Array


def log_joint(oracle, noisy, t, log_weight):
  """Logarithm of weight times density of each vector, up to a constant.

  Args:
    oracle: Oracle of K vectors.
    noisy: f32[B, ...].
    t: i32[B], timesteps.
    log_weight: f32[B, K], log probabilities of the vectors; -inf excludes one.
  Returns:
    f32[B, K], log weight - |noisy - alpha vector|^2 / (2 sigma^2 temperature).
  """
  alpha, variance = _alpha_variance(oracle, t)
  means = alpha[:, None, None] * oracle.vectors.reshape(
      1, oracle.vectors.shape[0], -1
  )
  # Differences first: expanding the square would cancel digits at low noise.
  distance = jnp.sum(
      (noisy.reshape(noisy.shape[0], 1, -1) - means) ** 2, axis=-1
  )
  return log_weight - distance / (
      2 * oracle.temperature * variance[:, None]
  )


def posterior(oracle, noisy, t, log_weight):
  """Probability of each clean vector, given the noisy one.

  Args:
    oracle: Oracle of K vectors.
    noisy: f32[B, ...].
    t: i32[B].
    log_weight: f32[B, K].
  Returns:
    f32[B, K], rows sum to 1.
  """
  return jax.nn.softmax(log_joint(oracle, noisy, t, log_weight), axis=-1)


def denoise(oracle, noisy, t, context):
  """Expected noise, called as `Model.denoise` is.

  Args:
    oracle: Oracle of K vectors.
    noisy: f32[B, ...], alpha vector + sigma noise.
    t: i32[B], timesteps.
    context: f32[B, 1, K], log probabilities of the vectors: what a caption
      says about the image, in the place of its embedding.
  Returns:
    f32[B, ...], (noisy - alpha E[vector | noisy]) / sigma.
  Raises:
    ValueError: the context does not weigh K vectors.
  """
  size = oracle.vectors.shape[0]
  if context.shape != (noisy.shape[0], 1, size):
    raise ValueError(
        f"denoise: context is {context.shape}, want"
        f" {(noisy.shape[0], 1, size)}: one log probability per vector."
    )
  probability = posterior(oracle, noisy, t, context[:, 0])
  clean = jnp.tensordot(
      probability, oracle.vectors, axes=1, precision="highest"
  )
  alpha, variance = _alpha_variance(oracle, t)
  shape = (-1,) + (1,) * (noisy.ndim - 1)
  return (noisy - alpha.reshape(shape) * clean) / jnp.sqrt(
      variance.reshape(shape)
  )


def _alpha_variance(oracle, t):
  """Signal scale alpha f32[B] and noise variance sigma^2 f32[B]."""
  signal = oracle.alphas_cumprod[t]
  return jnp.sqrt(signal), 1 - signal
