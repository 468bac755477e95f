"""How much noise a timestep carries, and what a prediction says about it.

Notation (Ho et al. 2020; Salimans and Ho 2022): z clean latent, n unit noise,
z_t = a_t z + s_t n with a_t^2 = alphas_cumprod[t] and a_t^2 + s_t^2 = 1, and
velocity v = a_t n - s_t z. T timesteps, B images.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamjax.diffusion import settings

PREDICTIONS = ("epsilon", "v_prediction")
"""What a UNet predicts: the noise n or the velocity v."""


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
  """A noise schedule; names are those of diffusers, values Stable Diffusion's.

  Attributes:
    num_train_timesteps: T.
    beta_start: variance added by the first timestep.
    beta_end: variance added by the last one.
    beta_schedule: "linear" in beta, or "scaled_linear", in its root.
    prediction_type: one of `PREDICTIONS`.
    set_alpha_to_one: whether the last step of a sampler removes all noise
      instead of stopping at timestep 0.
  """

  num_train_timesteps: int = 1000
  beta_start: float = 0.00085
  beta_end: float = 0.012
  beta_schedule: str = "scaled_linear"
  prediction_type: str = "epsilon"
  set_alpha_to_one: bool = False

  def __post_init__(self):
    if self.beta_schedule not in ("linear", "scaled_linear"):
      raise ValueError(
          f"ScheduleConfig: beta_schedule is {self.beta_schedule!r}, want"
          " 'linear' or 'scaled_linear'."
      )
    if self.prediction_type not in PREDICTIONS:
      raise ValueError(
          f"ScheduleConfig: prediction_type is {self.prediction_type!r}, want"
          f" one of {', '.join(PREDICTIONS)}."
      )
    if not 0.0 < self.beta_start <= self.beta_end < 1.0:
      raise ValueError(
          f"ScheduleConfig: betas run from {self.beta_start} to"
          f" {self.beta_end}, want 0 < beta_start <= beta_end < 1."
      )


NEUTRAL = {"trained_betas": (), "rescale_betas_zero_snr": (False,)}
"""Values of the other fields that change the schedule itself; null is one."""

READ_DEFAULTS = {
    "beta_start": 1e-4,
    "beta_end": 2e-2,
    "beta_schedule": "linear",
    "set_alpha_to_one": True,
}
"""What diffusers assumes for a key that is not in the file."""


def read_config(values: dict[str, Any]) -> ScheduleConfig:
  """ScheduleConfig of the parsed scheduler/scheduler_config.json.

  Keys that concern only the sampler it names are skipped: images are always
  drawn with DDIM.
  """
  return settings.read(
      "scheduler/scheduler_config.json",
      READ_DEFAULTS | values,
      ScheduleConfig,
      NEUTRAL,
      ignore_others=True,
  )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["alphas_cumprod"],
    meta_fields=["config"],
)
@dataclasses.dataclass(frozen=True)
class NoiseSchedule:
  """A schedule as arrays; a pytree with a static part.

  Attributes:
    alphas_cumprod: f32[T], share of the clean latent's variance, decreasing.
    config: what it was made from.
  """

  alphas_cumprod: jax.Array
  config: ScheduleConfig

  @property
  def prediction(self) -> str:
    """One of `PREDICTIONS`."""
    return self.config.prediction_type


def make(config: ScheduleConfig) -> NoiseSchedule:
  """The schedule of a config, accumulated in double precision."""
  power = 0.5 if config.beta_schedule == "scaled_linear" else 1.0
  beta = np.linspace(
      config.beta_start**power,
      config.beta_end**power,
      config.num_train_timesteps,
  ) ** (1.0 / power)
  return NoiseSchedule(
      jnp.asarray(np.cumprod(1.0 - beta), jnp.float32), config
  )


def alpha_sigma(
    schedule: NoiseSchedule, t: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """(a_t, s_t), each f32 in the shape of t, integer timesteps in [0, T)."""
  alpha_squared = schedule.alphas_cumprod[t]
  return jnp.sqrt(alpha_squared), jnp.sqrt(1.0 - alpha_squared)


def _per_image(schedule, t, like):
  """(a_t, s_t) of t i32[B], shaped to scale `like` f32[B, ...]."""
  shape = t.shape + (1,) * (like.ndim - t.ndim)
  alpha, sigma = alpha_sigma(schedule, t)
  return alpha.reshape(shape), sigma.reshape(shape)


def add_noise(
    schedule: NoiseSchedule, latent: jax.Array, noise: jax.Array, t: jax.Array
) -> jax.Array:
  """z_t of latent and unit noise, each f32[B, ...], at t i32[B]."""
  alpha, sigma = _per_image(schedule, t, latent)
  return alpha * latent + sigma * noise


def velocity(
    schedule: NoiseSchedule, latent: jax.Array, noise: jax.Array, t: jax.Array
) -> jax.Array:
  """v of latent and unit noise, each f32[B, ...], at t i32[B]."""
  alpha, sigma = _per_image(schedule, t, latent)
  return alpha * noise - sigma * latent


def predict_noise(
    schedule: NoiseSchedule,
    model_output: jax.Array,
    noisy: jax.Array,
    t: jax.Array,
) -> jax.Array:
  """The noise n that a raw prediction means; a_t v + s_t z_t for velocities.

  Args:
    schedule: it knows what the model predicts.
    model_output: f32[B, ...], the UNet's output.
    noisy: f32[B, ...], z_t, its input.
    t: i32[B], timesteps.
  Returns:
    f32[B, ...].
  """
  if schedule.prediction == "epsilon":
    return model_output
  alpha, sigma = _per_image(schedule, t, noisy)
  return alpha * model_output + sigma * noisy


def predict_original(
    schedule: NoiseSchedule,
    model_output: jax.Array,
    noisy: jax.Array,
    t: jax.Array,
) -> jax.Array:
  """The clean latent z that a raw prediction means; arguments as above.

  (z_t - s_t n) / a_t for noise, a_t z_t - s_t v for velocities.
  """
  alpha, sigma = _per_image(schedule, t, noisy)
  if schedule.prediction == "epsilon":
    return (noisy - sigma * model_output) / alpha
  return alpha * noisy - sigma * model_output
