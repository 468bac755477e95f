"""The closed-form denoiser is the exact posterior mean."""

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax.diffusion import oracle as oracle_lib

SHAPE = (2, 3, 1)
BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
ALPHAS_CUMPROD = np.cumprod(1 - BETAS)


def world(count=5, temperature=1.0):
  vectors = random.normal(random.key(0), (count,) + SHAPE)
  return oracle_lib.Oracle(
      vectors, jnp.asarray(ALPHAS_CUMPROD, jnp.float32),
      jnp.float32(temperature),
  )


def captions(count=5, batch=3):
  logits = random.normal(random.key(1), (batch, 1, count))
  return jax.nn.log_softmax(logits)


def noisy_batch(batch=3):
  return random.normal(random.key(2), (batch,) + SHAPE)


TIMES = jnp.array([20, 500, 980])


def test_noise_equals_brute_force_in_double_precision():
  oracle, context, noisy = world(), captions(), noisy_batch()
  result = oracle_lib.denoise(oracle, noisy, TIMES, context)
  vectors = np.asarray(oracle.vectors, np.float64)
  for b, t in enumerate(np.asarray(TIMES)):
    alpha, sigma = np.sqrt(ALPHAS_CUMPROD[t]), np.sqrt(1 - ALPHAS_CUMPROD[t])
    z = np.asarray(noisy[b], np.float64)
    weight = np.array([
        np.exp(float(context[b, 0, k]))
        * np.exp(-np.sum((z - alpha * vectors[k]) ** 2) / (2 * sigma**2))
        for k in range(len(vectors))
    ])
    clean = np.tensordot(weight / weight.sum(), vectors, 1)
    np.testing.assert_allclose(
        result[b], (z - alpha * clean) / sigma, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_noise_is_the_slope_of_the_log_density(temperature):
  oracle, context, noisy = world(temperature=temperature), captions(), (
      noisy_batch()
  )
  log_density = lambda noisy: jnp.sum(jax.nn.logsumexp(
      oracle_lib.log_joint(oracle, noisy, TIMES, context[:, 0]), axis=-1
  ))
  score = jax.grad(log_density)(noisy)
  sigma = jnp.sqrt(1 - oracle.alphas_cumprod[TIMES])[:, None, None, None]
  np.testing.assert_allclose(
      oracle_lib.denoise(oracle, noisy, TIMES, context),
      -sigma * temperature * score, rtol=1e-3, atol=1e-4,
  )


def test_one_vector_is_recovered_exactly():
  oracle = world(count=1)
  noise = noisy_batch()
  alpha = jnp.sqrt(oracle.alphas_cumprod[TIMES])[:, None, None, None]
  noisy = alpha * oracle.vectors + jnp.sqrt(1 - alpha**2) * noise
  context = jnp.zeros((3, 1, 1))
  np.testing.assert_allclose(
      oracle_lib.denoise(oracle, noisy, TIMES, context), noise, atol=1e-4
  )


def test_little_noise_points_at_the_nearest_vector():
  oracle = world()
  near = oracle.vectors[3:4] + 0.01
  probability = oracle_lib.posterior(
      oracle, near, jnp.array([0]), jnp.zeros((1, 5))
  )
  np.testing.assert_allclose(probability[0], np.eye(5)[3], atol=1e-6)


def test_caption_excludes_vectors():
  oracle, noisy = world(), noisy_batch()
  log_weight = jnp.full((3, 5), -jnp.inf).at[:, 2].set(0.0)
  probability = oracle_lib.posterior(oracle, noisy, TIMES, log_weight)
  np.testing.assert_array_equal(probability, np.eye(5)[[2, 2, 2]])


def test_heat_spreads_the_posterior():
  noisy, log_weight = noisy_batch(), jnp.zeros((3, 5))
  sharpest = lambda temperature: oracle_lib.posterior(
      world(temperature=temperature), noisy, TIMES, log_weight
  ).max(axis=-1)
  assert (sharpest(8.0) < sharpest(1.0)).all()


def test_context_of_another_world_is_refused():
  with pytest.raises(ValueError, match=r"want \(3, 1, 5\)"):
    oracle_lib.denoise(world(), noisy_batch(), TIMES, captions(count=4))
