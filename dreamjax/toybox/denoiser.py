"""Training of the toybox's UNet together with its text tower.

Velocity prediction (Salimans and Ho 2022) with captions dropped in part:
without the colour, without the view, or altogether, so that guidance and
prompts without view words mean something.

Views are described as the distillation describes them, by the blend of the
texts around them (prompts.mix). So a blend comes to mean its exact angle, and
not a side somewhere near.
"""

from typing import NamedTuple

import jax
from jax import random
import jax.numpy as jnp
import optax

from dreamjax import prompts
from dreamjax.diffusion import schedule as schedule_lib
from dreamjax.toybox import pictures as pictures_lib
from dreamjax.toybox import training
from dreamjax.toybox import words

BATCH = 16
PEAK_RATE = 1.2e-3
_NO_CAPTION, _NO_COLOR, _NO_VIEW = 0.10, 0.08, 0.12
# Beyond this share of the schedule a 16 x 16 latent is nearly pure noise: it
# gets a small part of the training.
_NOISY, _NOISY_SHARE = 0.75, 0.15


class Data(NamedTuple):
  """What the denoiser learns from; N latents.

  Attributes:
    latent: f16[N, h, w, C].
    kind: i32[N].
    color: i32[N].
    azimuth: f32[N], radians.
    elevation: f32[N], radians.
    token: i32[M, L], ids of all captions, pictures.captions.
  """

  latent: jax.Array
  kind: jax.Array
  color: jax.Array
  azimuth: jax.Array
  elevation: jax.Array
  token: jax.Array


def sample_captions(key, data, index, settings):
  """Captions of latents, with words left out.

  Args:
    key: of what is left out.
    data: Data.
    index: i32[B], the latents.
    settings: config.PromptConfig, whose views are words.VIEWS.
  Returns:
    (numbers of captions i32[B, 3], their shares f32[B, 3]).
  """
  caption, color, view = random.uniform(key, (3, index.shape[0], 1))
  sides, share = prompts.mix(
      settings, data.azimuth[index], data.elevation[index]
  )
  chosen = pictures_lib.caption_index(
      data.kind[index, None],
      jnp.where(color < _NO_COLOR, len(words.COLORS), data.color[index, None]),
      jnp.where(view < _NO_VIEW, len(words.VIEWS) + 1, sides),
  )
  nothing = data.token.shape[0] - 1
  return jnp.where(caption < _NO_CAPTION, nothing, chosen), share


def sample_time(key, size, total):
  """Timesteps i32[size], stratified; few of them nearly pure noise."""
  share = (random.uniform(key) + jnp.arange(size) / size) % 1.0
  few = 1.0 - _NOISY_SHARE
  time = jnp.where(
      share < few,
      share * (_NOISY / few),
      _NOISY + (share - few) * ((1.0 - _NOISY) / _NOISY_SHARE),
  )
  return jnp.minimum((total * time).astype(jnp.int32), total - 1)


def loss(model, schedule, settings, params, data, key, rows):
  """Mean square error of the velocity over rows of a random batch, f32[]."""
  key_index, key_caption, key_time, key_noise = random.split(key, 4)
  index = random.randint(key_index, (BATCH,), 0, data.latent.shape[0])
  caption, share = sample_captions(key_caption, data, index, settings)
  time = sample_time(key_time, BATCH, schedule.config.num_train_timesteps)
  noise = random.normal(key_noise, (BATCH, *data.latent.shape[1:]))
  time, noise = time[rows], noise[rows]
  latent = data.latent[index[rows]].astype(jnp.float32)
  token = data.token[caption[rows]]
  text = model.encode_text(params, token.reshape(-1, token.shape[-1]))
  text = text.reshape(*token.shape, -1)
  predicted = model.denoise(
      params,
      schedule_lib.add_noise(schedule, latent, noise, time),
      time,
      prompts.blend(text, share[rows]),
  )
  wanted = schedule_lib.velocity(schedule, latent, noise, time)
  return jnp.mean((predicted - wanted) ** 2)


def make_update(model, schedule, settings, steps, peak_rate=PEAK_RATE):
  """The training step.

  Args:
    model: the Stable Diffusion, static.
    schedule: its noise schedule.
    settings: config.PromptConfig, how views are described.
    steps: of the whole training.
    peak_rate: largest learning rate.
  Returns:
    training.Update; its data is `Data`, its parameters are those of "unet"
    and "text_encoder".
  """
  rate = training.rate(peak_rate, steps)
  return training.Update(
      lambda *batch: loss(model, schedule, settings, *batch),
      BATCH,
      optax.chain(
          optax.clip_by_global_norm(1.0),
          optax.adamw(rate, b2=0.99, weight_decay=1e-2),
      ),
      ema=0.998,
  )
