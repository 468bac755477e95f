"""Noise schedules and what predictions mean under them."""

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax.diffusion import schedule

SHAPE = (3, 2, 2, 4)
T = jnp.array([0, 500, 999])


def make(**fields):
  return schedule.make(schedule.ScheduleConfig(**fields))


def latent_and_noise():
  keys = random.split(random.key(0))
  return random.normal(keys[0], SHAPE), random.normal(keys[1], SHAPE)


@pytest.mark.parametrize(
    "t, share",
    [(20, 0.981), (100, 0.894), (250, 0.674), (500, 0.276), (980, 0.0058)],
)
def test_scaled_linear_schedule_has_the_published_values(t, share):
  # Three digits are published.
  np.testing.assert_allclose(make().alphas_cumprod[t], share, rtol=1e-2)


def test_linear_schedule_is_the_product_of_its_steps():
  config = schedule.ScheduleConfig(
      num_train_timesteps=3,
      beta_start=0.1,
      beta_end=0.3,
      beta_schedule="linear",
  )
  np.testing.assert_allclose(
      schedule.make(config).alphas_cumprod, [0.9, 0.72, 0.504], rtol=1e-6
  )


def test_signal_and_noise_variances_sum_to_one():
  alpha, sigma = schedule.alpha_sigma(make(), jnp.arange(1000))
  np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, atol=1e-6)


@pytest.mark.parametrize("prediction", schedule.PREDICTIONS)
def test_a_perfect_prediction_gives_noise_and_original_back(prediction):
  noise_schedule = make(prediction_type=prediction)
  latent, noise = latent_and_noise()
  noisy = schedule.add_noise(noise_schedule, latent, noise, T)
  output = noise
  if prediction == "v_prediction":
    output = schedule.velocity(noise_schedule, latent, noise, T)
  # alpha(999) is 0.068: float32 loses a digit in the division by it.
  np.testing.assert_allclose(
      schedule.predict_original(noise_schedule, output, noisy, T),
      latent,
      atol=1e-5,
  )
  np.testing.assert_allclose(
      schedule.predict_noise(noise_schedule, output, noisy, T),
      noise,
      atol=1e-5,
  )


def test_a_schedule_is_an_argument_of_jit():
  step = jax.jit(
      lambda schedule_arg, t: schedule.alpha_sigma(schedule_arg, t)[0]
  )
  np.testing.assert_allclose(
      step(make(), T), np.sqrt(make().alphas_cumprod[T]), rtol=1e-6
  )


def test_config_is_read_as_diffusers_reads_it():
  config = schedule.read_config({
      "_class_name": "PNDMScheduler",
      "beta_start": 0.00085,
      "beta_end": 0.012,
      "beta_schedule": "scaled_linear",
      "skip_prk_steps": True,
      "set_alpha_to_one": False,
      "trained_betas": None,
  })
  assert config == schedule.ScheduleConfig()
  assert schedule.read_config({}).beta_schedule == "linear"


@pytest.mark.parametrize(
    "field, value",
    [
        ("prediction_type", "sample"),
        ("beta_schedule", "squaredcos_cap_v2"),
        ("trained_betas", [0.1, 0.2]),
        ("rescale_betas_zero_snr", True),
        ("beta_start", -1.0),
        ("num_train_timesteps", "1000"),
    ],
)
def test_an_unknown_schedule_is_refused_by_name(field, value):
  with pytest.raises(ValueError, match=field.removesuffix("_start")):
    schedule.read_config({field: value})
