"""Drawing images with DDIM."""

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax.diffusion import sample
from dreamjax.diffusion import schedule

SHAPE = (2, 3, 3, 4)


def test_steps_lead_from_noise_to_the_clean_end():
  noise_schedule = schedule.make(schedule.ScheduleConfig())
  t, t_next = sample.timesteps(noise_schedule, 4)
  np.testing.assert_array_equal(t, [751, 501, 251, 1])
  np.testing.assert_array_equal(t_next, [501, 251, 1, -249])


@pytest.mark.parametrize("steps", [0, 1000])
def test_a_wrong_number_of_steps_is_refused(steps):
  with pytest.raises(ValueError, match="want 1 to 999"):
    sample.timesteps(schedule.make(schedule.ScheduleConfig()), steps)


@pytest.mark.parametrize("prediction", schedule.PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 7])
def test_a_perfect_denoiser_of_one_image_draws_that_image(prediction, steps):
  noise_schedule = schedule.make(
      schedule.ScheduleConfig(
          prediction_type=prediction, set_alpha_to_one=True
      )
  )
  image = random.normal(random.key(0), SHAPE)

  def predict(noisy, t):
    alpha, sigma = (
        x[:, None, None, None] for x in schedule.alpha_sigma(noise_schedule, t)
    )
    noise = (noisy - alpha * image) / sigma
    if prediction == "epsilon":
      return noise
    return schedule.velocity(noise_schedule, image, noise, t)

  noise = random.normal(random.key(1), SHAPE)
  drawn = jax.jit(
      lambda noise: sample.ddim(noise_schedule, predict, noise, steps)
  )(noise)
  # The first division is by alpha(t), down to 0.07: float32 loses a digit.
  np.testing.assert_allclose(drawn, image, atol=1e-4)


def test_without_the_last_step_the_noise_of_timestep_zero_stays():
  noise_schedule = schedule.make(schedule.ScheduleConfig())
  image, noise = jnp.zeros(SHAPE), jnp.ones(SHAPE)
  predict = lambda noisy, t: noise
  start = schedule.add_noise(
      noise_schedule, image, noise, jnp.full(2, 501, jnp.int32)
  )
  drawn = sample.ddim(noise_schedule, predict, start, 2)
  np.testing.assert_allclose(drawn, np.sqrt(0.00085), rtol=1e-3)


def test_a_draw_is_its_seed_and_no_image_knows_its_neighbours(pipeline):
  pair = sample.draw(pipeline, ["a red mug", "a mug"], seed=3, steps=2)
  one = sample.draw(pipeline, ["a red mug"], seed=3, steps=2)
  assert pair.shape == (2, 16, 16, 3)
  assert pair.min() >= 0.0 and pair.max() <= 1.0
  np.testing.assert_allclose(pair[0], one[0], atol=1e-5)
  np.testing.assert_array_equal(
      one, sample.draw(pipeline, ["a red mug"], seed=3, steps=2)
  )
  other = sample.draw(pipeline, ["a red mug"], seed=4, steps=2)
  assert np.abs(one - other).max() > 1e-2


def test_guidance_is_between_the_text_and_the_negative_text(pipeline):
  draw = lambda prompt, **kwargs: sample.draw(
      pipeline, [prompt], steps=2, **kwargs
  )
  np.testing.assert_allclose(
      draw("a red mug", negative="a mug", scale=0.0),
      draw("a mug", scale=1.0),
      atol=1e-5,
  )


def test_a_size_between_the_grid_and_no_prompts_are_refused(pipeline):
  with pytest.raises(ValueError, match="multiples of 4"):
    sample.draw(pipeline, ["a mug"], size=18)
  with pytest.raises(ValueError, match="no prompts"):
    sample.draw(pipeline, [])
