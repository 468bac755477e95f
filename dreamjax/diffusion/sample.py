"""Images from text by DDIM (Song et al. 2021a, Eq. 12 with eta = 0).

B images, h w latent pixels, C latent channels, N tokens, E embedding width.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamjax.diffusion import guide
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import schedule as schedule_lib


def timesteps(
    schedule: schedule_lib.NoiseSchedule, steps: int
) -> tuple[np.ndarray, np.ndarray]:
  """Where DDIM evaluates the denoiser, and where each step leads.

  "Leading" spacing with offset 1, diffusers' for Stable Diffusion.

  Args:
    schedule: T timesteps.
    steps: number of evaluations, 1 to T - 1.
  Returns:
    (t, t_next), each i32[steps], decreasing; t_next < 0 is the clean end.
  Raises:
    ValueError: steps is out of range.
  """
  total = schedule.config.num_train_timesteps
  if not 1 <= steps < total:
    raise ValueError(f"steps is {steps}, want 1 to {total - 1}.")
  stride = total // steps
  t = np.arange(steps, dtype=np.int32)[::-1] * stride + 1
  return t, t - stride


def ddim(
    schedule: schedule_lib.NoiseSchedule,
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    noise: jax.Array,
    steps: int,
) -> jax.Array:
  """Latents that a denoiser draws from noise, deterministically.

  Args:
    schedule: it knows what `predict` predicts.
    predict: noisy latent f32[B, ...] and timesteps i32[B] to raw predictions.
    noise: f32[B, ...], unit noise.
    steps: number of evaluations.
  Returns:
    f32[B, ...].
  """
  t, t_next = timesteps(schedule, steps)
  last = 1.0 if schedule.config.set_alpha_to_one else schedule.alphas_cumprod[0]
  alpha_squared = jnp.where(
      t_next < 0, last, schedule.alphas_cumprod[np.maximum(t_next, 0)]
  )

  def step(noisy, xs):
    t, alpha_squared = xs
    t = jnp.full(noisy.shape[:1], t)
    output = predict(noisy, t)
    original = schedule_lib.predict_original(schedule, output, noisy, t)
    direction = schedule_lib.predict_noise(schedule, output, noisy, t)
    noisy = (
        jnp.sqrt(alpha_squared) * original
        + jnp.sqrt(1.0 - alpha_squared) * direction
    )
    return noisy, None

  return jax.lax.scan(step, noise, (jnp.asarray(t), alpha_squared))[0]


@functools.partial(jax.jit, static_argnames=("model", "steps"))
def latents(
    model: model_lib.Model,
    params: dict[str, Any],
    schedule: schedule_lib.NoiseSchedule,
    context: jax.Array,
    empty: jax.Array,
    noise: jax.Array,
    scale: float | jax.Array,
    *,
    steps: int,
) -> jax.Array:
  """Latents drawn for text embeddings, guided; both branches in one batch.

  Args:
    model: static part.
    params: of all networks; the UNet's are used.
    schedule: of the model.
    context: f32[B, N, E], embedding of each text.
    empty: f32[B, N, E], embedding of the empty or negative text.
    noise: f32[B, h, w, C], unit noise.
    scale: guidance scale.
    steps: number of evaluations.
  Returns:
    f32[B, h, w, C].
  """
  both = jnp.concatenate([empty, context])

  def predict(noisy, t):
    output = model.denoise(
        params, jnp.concatenate([noisy, noisy]), jnp.concatenate([t, t]), both
    )
    unconditional, conditional = jnp.split(output, 2)
    return guide.classifier_free(conditional, unconditional, scale)

  return ddim(schedule, predict, noise, steps)


@functools.partial(jax.jit, static_argnames="model")
def _embed(model, params, token):
  return model.encode_text(params, token)


@functools.partial(jax.jit, static_argnames="model")
def _decode(model, params, latent):
  return jnp.clip(model.decode_image(params, latent), 0.0, 1.0)


def draw(
    pipeline: model_lib.StableDiffusion,
    prompts: Sequence[str],
    *,
    negative: str = "",
    seed: int = 0,
    steps: int = 50,
    scale: float = 7.5,
    size: int = 0,
) -> np.ndarray:
  """One image per prompt.

  Args:
    pipeline: an opened model folder.
    prompts: B texts.
    negative: what to stay away from.
    seed: image i draws its noise from fold_in(key(seed), i), whatever B is.
    steps: denoiser evaluations per image (each of both branches).
    scale: guidance scale.
    size: side of the images; 0 takes the size that the model was made for.
  Returns:
    f32[B, size, size, 3] in [0, 1], on the host.
  Raises:
    ValueError: no prompts, or a size or number of steps that does not suit.
  """
  if not prompts:
    raise ValueError("draw: no prompts.")
  model, params = pipeline.model, pipeline.params
  size = size or model.image_size
  shape = model.latent_shape(size, size)
  key = jax.random.key(seed)
  noise = jnp.stack([
      jax.random.normal(jax.random.fold_in(key, i), shape)
      for i in range(len(prompts))
  ])
  embedding = _embed(
      model, params, pipeline.tokenizer([*prompts, negative])
  )
  empty = jnp.broadcast_to(embedding[-1:], embedding[:-1].shape)
  drawn = latents(
      model,
      params,
      pipeline.schedule,
      embedding[:-1],
      empty,
      noise,
      scale,
      steps=steps,
  )
  # One at a time: the decoder's activations dwarf all others.
  images = [_decode(model, params, latent[None]) for latent in drawn]
  return np.concatenate(images)
