"""Score distillation: the gradient that a denoiser gives a clean latent.

With noise n and a timestep t, z_t = a_t z + s_t n, and the denoiser's guided
idea e of that noise, the gradient is w(t) (e - n) (Poole et al. 2022, Eq. 3).
Because e - n = (a_t / s_t) (z - x), where x is the clean latent that e means,
w = s_t / a_t descends on the distance between z and x.

One look at z_t gives a mean of all that x may be, without the small things.
With several, x is sampled instead: deterministic steps of DDIM (Song et al.
2021, Eq. 12) lead from t to 0 (as in ReconFusion, Wu et al. 2024), and e is
the noise that lies between z_t and the x that was found.

The same pull can be felt by the image instead: from what is rendered to the
picture that x decodes to (the image-space term of HiFA, Zhu and Zhuang 2023).
It costs a decoder's forward pass and saves the encoder's backward pass. What
the autoencoder does not give back as it got it pulls too, most where t is low.

Notation: B views, K noises per view, h w latent pixels, C latent channels, N
tokens, E embedding width, M opposed texts per view, T timesteps; a_t and s_t as
in diffusion/schedule.py.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from dreamjax.diffusion import guide
from dreamjax.diffusion import schedule as schedule_lib

# (a_t, s_t) -> w(t), by the name that config.GuidanceConfig.weighting gives.
WEIGHTINGS = {
    "sds": lambda alpha, sigma: sigma**2,
    "uniform": lambda alpha, sigma: jnp.ones_like(sigma),
    "fantasia3d": lambda alpha, sigma: alpha * sigma**2,
    "x0": lambda alpha, sigma: sigma / alpha,
}


def gradient(t, noise, scale, latent, texts, denoise, schedule, config):
  """Gradient of a mean over views and latent numbers; see the module.

  All views, noises and texts go through the denoiser in one call per step of
  DDIM, and it is not differentiated.

  Args:
    t: i32[K, B], timesteps.
    noise: f32[K, B, h, w, C].
    scale: f32[], of classifier-free guidance; the config has its schedule.
    latent: f32[B, h, w, C], clean latents of the views.
    texts: prompts.Texts of the views.
    denoise: (noisy f32[(2 + M) K B, h, w, C], t i32[(2 + M) K B], context
      f32[(2 + M) K B, N, E]) -> raw prediction, f32 like noisy.
    schedule: diffusion.schedule.NoiseSchedule; it knows what is predicted.
    config: config.GuidanceConfig.
  Returns:
    f32[B, h, w, C], strength (z - x) over the number of latent numbers, x the
      mean of the clean latents that the noises gave;
    strength, f32[B];
    diagnostics, dict of f32[], means over views and noises: "residual", root
    mean square of e - n; "text", |c - u| / |u - n| of the first predictions
    with (c) and without (u) text; "t", timestep.
  """
  count, size = t.shape
  t = t.reshape(-1)
  noise = noise.reshape((-1,) + latent.shape[1:])
  noisy = schedule_lib.add_noise(
      schedule, jnp.tile(latent, (count, 1, 1, 1)), noise, t
  )
  predict = functools.partial(
      _predict, denoise, schedule, scale, config.rescale, _tile(texts, count)
  )
  alpha, sigma = schedule_lib.alpha_sigma(schedule, t)
  clean, guided, text, surprise = _sample(
      predict, schedule, config.denoise_steps, noise, noisy, t
  )
  if config.denoise_steps > 1:
    guided = (noisy - _column(alpha) * clean) / _column(sigma)
  residual = guided - noise
  weight = jnp.minimum(
      WEIGHTINGS[config.weighting](alpha, sigma), config.weight_cap
  )
  weighted = (_column(weight) * residual).reshape((count,) + latent.shape)
  strength = jnp.mean((weight * alpha / sigma).reshape(count, size), axis=0)
  diagnostics = {
      "residual": jnp.mean(_norm(residual)) / residual[0].size ** 0.5,
      "text": jnp.mean(text / jnp.maximum(surprise, 1e-12)),
      "t": jnp.mean(t.astype(jnp.float32)),
  }
  return jnp.mean(weighted, axis=0) / latent.size, strength, diagnostics


def image_gradient(image, latent, gradient, strength, decode):
  """The gradient of the same mean, taken on images; see the module.

  Args:
    image: f32[B, H, W, 3], what `latent` encodes.
    latent: f32[B, h, w, C], as in `gradient`.
    gradient: f32[B, h, w, C], of `gradient`.
    strength: f32[B], of `gradient`.
    decode: f32[B, h, w, C] -> f32[B, H, W, 3]; it is not differentiated.
  Returns:
    f32[B, H, W, 3].
  """
  strength = _column(strength)
  clean = latent - gradient * latent.size / jnp.maximum(strength, 1e-12)
  return strength * (image - decode(clean)) / image.size


def _tile(texts, count):
  """prompts.Texts of so many noises of each view, the views one after another.

  Only `empty` becomes f32[K B, N, E] like the rest.
  """
  size = count * len(texts.context)
  return texts._replace(
      context=jnp.tile(texts.context, (count, 1, 1)),
      empty=jnp.broadcast_to(texts.empty, (size, *texts.empty.shape)),
      opposed=jnp.tile(texts.opposed, (1, count, 1, 1)),
      weight=jnp.tile(texts.weight, (1, count)),
  )


def _predict(denoise, schedule, scale, rescale, texts, noisy, t):
  """The noise (with text, without, guided), each f32[B, h, w, C].

  Args:
    denoise: see `gradient`.
    schedule: as well.
    scale: as well.
    rescale: phi, see `_rescale`.
    texts: of `_tile`.
    noisy: f32[B, h, w, C].
    t: i32[B].
  """
  context = [texts.context, texts.empty, *texts.opposed]
  branches = len(context)
  output = denoise(
      jnp.concatenate([noisy] * branches),
      jnp.concatenate([t] * branches),
      jnp.concatenate(context),
  )
  conditional, unconditional, *opposed = (
      schedule_lib.predict_noise(schedule, branch, noisy, t)
      for branch in jnp.split(output, branches)
  )
  guided = guide.classifier_free(
      guide.keep_off(conditional, unconditional, opposed, texts.weight),
      unconditional,
      scale,
  )
  if rescale:
    alpha, sigma = map(_column, schedule_lib.alpha_sigma(schedule, t))
    guided = _rescale(guided, conditional, noisy, alpha, sigma, rescale)
  return conditional, unconditional, guided


def _sample(predict, schedule, steps, noise, noisy, t):
  """The clean latent at the end of so many steps of DDIM.

  The denoiser stands in the loop alone, so that it is compiled once.

  Args:
    predict: (noisy, t) -> the noise with text, without, guided.
    schedule: diffusion.schedule.NoiseSchedule.
    steps: equal ones, from t to 0.
    noise: f32[B, h, w, C], of z_t.
    noisy: f32[B, h, w, C], z_t.
    t: i32[B].
  Returns:
    (clean latent f32[B, h, w, C], the last guided noise as well, |c - u| f32[B]
    and |u - n| f32[B] of the first predictions).
  """

  def step(number, carry):
    noisy, _, _, text, surprise = carry
    now, then = (t * (steps - n) // steps for n in (number, number + 1))
    conditional, unconditional, guided = predict(noisy, now)
    alpha, sigma = map(_column, schedule_lib.alpha_sigma(schedule, now))
    clean = (noisy - sigma * guided) / alpha
    text, surprise = (
        jnp.where(number == 0, _norm(difference), first)
        for difference, first in (
            (conditional - unconditional, text),
            (unconditional - noise, surprise),
        )
    )
    noisy = schedule_lib.add_noise(schedule, clean, guided, then)
    return noisy, clean, guided, text, surprise

  nothing, zero = jnp.zeros_like(noisy), jnp.zeros(t.shape, jnp.float32)
  # The last prediction, at t / steps, says what lies at 0.
  _, *found = lax.fori_loop(
      0, steps, step, (noisy, nothing, nothing, zero, zero)
  )
  return found


def _rescale(guided, conditional, noisy, alpha, sigma, share):
  """Noise whose clean latent spreads as the conditional one's does.

  Guidance inflates the standard deviation of x; a share phi of that is undone
  in each view: x (phi std(x_c) / std(x) + 1 - phi) (MVDream, section 3.2).

  Args:
    guided: f32[B, h, w, C], the guided noise.
    conditional: f32[B, h, w, C], the noise predicted with text.
    noisy: f32[B, h, w, C], z_t.
    alpha: f32[B, 1, 1, 1], a_t.
    sigma: f32[B, 1, 1, 1], s_t.
    share: phi.
  Returns:
    f32[B, h, w, C].
  """
  original = (noisy - sigma * guided) / alpha
  wanted = (noisy - sigma * conditional) / alpha
  axes = (1, 2, 3)
  spread = jnp.maximum(jnp.std(original, axes, keepdims=True), 1e-12)
  ratio = jnp.std(wanted, axes, keepdims=True) / spread
  # (z_t - a f x) / s without the difference of large numbers.
  return guided + alpha / sigma * share * (1 - ratio) * original


def _column(value):
  """f32[B] -> f32[B, 1, 1, 1]."""
  return value[:, None, None, None]


def _norm(image):
  """f32[B], length of each of f32[B, h, w, C]."""
  return jnp.sqrt(jnp.sum(image**2, axis=(1, 2, 3)))
