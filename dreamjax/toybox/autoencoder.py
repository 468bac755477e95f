"""Training of the toybox's autoencoder, and the latents it gives.

The usual loss of latent diffusion (Rombach et al. 2022, section 3.1) without
its adversarial part: toys have no texture that would need one.
"""

from typing import Any

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import vae
from dreamjax.toybox import pictures as pictures_lib
from dreamjax.toybox import training
from dreamjax.toybox import words

BATCH = 8
PEAK_RATE = 2e-3
_SQUARE_WEIGHT = 2.0
_EDGE_WEIGHT = 0.5
_KL_WEIGHT = 3e-4
_PICTURES_PER_CALL = 64


def loss(params, image, keys, config):
  """Reconstruction from a sampled latent, and the latent's divergence.

  Args:
    params: of the autoencoder.
    image: f32[B, H, W, 3] in [0, 1].
    keys: [B], of the latents' noise.
    config: vae.VAEConfig.
  Returns:
    f32[]: mean absolute error + 2 mean square error + half the mean absolute
    error of the slopes + a little KL divergence from the unit Gaussian.
  """
  network = vae.AutoencoderKL(config)
  apply = lambda value, method: network.apply(
      {"params": params}, value, method=method
  )
  mean, log_variance = apply(2 * image - 1, "encode")
  noise = jax.vmap(lambda key: random.normal(key, mean.shape[1:]))(keys)
  error = apply(mean + jnp.exp(0.5 * log_variance) * noise, "decode")
  error = error - (2 * image - 1)
  edges = jnp.mean(jnp.abs(jnp.diff(error, axis=1))) + jnp.mean(
      jnp.abs(jnp.diff(error, axis=2))
  )
  divergence = 0.5 * jnp.mean(
      mean**2 + jnp.exp(log_variance) - 1 - log_variance
  )
  return (
      jnp.mean(jnp.abs(error))
      + _SQUARE_WEIGHT * jnp.mean(error**2)
      + _EDGE_WEIGHT * edges
      + _KL_WEIGHT * divergence
  )


def make_update(config, background, steps):
  """The training step.

  Args:
    config: vae.VAEConfig.
    background: config.BackgroundConfig.
    steps: of the whole training.
  Returns:
    training.Update; its data is the layers u8[N, S, S, 5].
  """

  def batch_loss(params, layers, key, rows):
    key_index, key_color, key_compose, key_noise = random.split(key, 4)
    index = random.randint(key_index, (BATCH,), 0, layers.shape[0])
    color = random.randint(key_color, (BATCH,), 0, len(words.COLORS))
    image = pictures_lib.compose(
        layers[index], color, key_compose, background
    )
    keys = random.split(key_noise, BATCH)
    return loss(params, image[rows], keys[rows], config)

  rate = training.rate(PEAK_RATE, steps)
  return training.Update(
      batch_loss,
      BATCH,
      optax.chain(
          optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99)
      ),
      ema=0.99,
  )


def whiten(params: dict[str, Any], latent: np.ndarray) -> dict[str, Any]:
  """Folds an affine map of the latent into the two 1x1 convolutions.

  Args:
    params: of the autoencoder.
    latent: f32[N, C], latents that it gives.
  Returns:
    Parameters of an autoencoder with the same reconstructions, whose latents
    have mean 0 and covariance 1: what the noise schedule counts on.
  """
  latent = np.asarray(latent, np.float64)
  mean = latent.mean(0)
  values, vectors = np.linalg.eigh(np.cov(latent.T))
  white = (vectors / np.sqrt(values)) @ vectors.T  # symmetric
  color = (vectors * np.sqrt(values)) @ vectors.T
  channels = latent.shape[1]
  quant = params["quant_conv"]
  post = params["post_quant_conv"]
  kernel = np.array(quant["kernel"], np.float64)  # [1, 1, 2 C, 2 C]
  bias = np.array(quant["bias"], np.float64)
  kernel[..., :channels] = kernel[..., :channels] @ white
  bias[:channels] = (bias[:channels] - mean) @ white
  post_kernel = np.array(post["kernel"], np.float64)[0, 0]
  changed = {
      "quant_conv": {"kernel": kernel, "bias": bias},
      "post_quant_conv": {
          "kernel": (color @ post_kernel)[None, None],
          "bias": np.asarray(post["bias"]) + mean @ post_kernel,
      },
  }
  return params | jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), changed)


def encode(
    model: model_lib.Model,
    params: dict[str, Any],
    layers: np.ndarray,
    background,
    color: np.ndarray,
    seed: int,
) -> np.ndarray:
  """Latents of painted pictures.

  Args:
    model: the Stable Diffusion.
    params: {"vae": parameters of the autoencoder}.
    layers: u8[N, S, S, 5].
    background: config.BackgroundConfig.
    color: i32[N], index into words.COLORS.
    seed: of paint and backgrounds.
  Returns:
    f16[N, h, w, C], on the host.
  """

  @jax.jit
  def call(params, layers, color, key):
    image = pictures_lib.compose(layers, color, key, background)
    return model.encode_image(params, image).astype(jnp.float16)

  parts = []
  for start in range(0, len(layers), _PICTURES_PER_CALL):
    # The last call is moved back, so that all have one shape.
    start = max(min(start, len(layers) - _PICTURES_PER_CALL), 0)
    stop = start + _PICTURES_PER_CALL
    key = random.fold_in(random.key(seed), start)
    part = call(params, layers[start:stop], color[start:stop], key)
    parts.append((start, np.asarray(part)))
  found = np.zeros((len(layers), *parts[0][1].shape[1:]), np.float16)
  for start, part in parts:
    found[start : start + len(part)] = part
  return found
