"""Classifier-free guidance, and Perp-Neg."""

from jax import random
import jax.numpy as jnp
import numpy as np

from dreamjax.diffusion import guide


def test_scale_zero_ignores_the_text_and_one_follows_it():
  text, none = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])
  np.testing.assert_array_equal(guide.classifier_free(text, none, 0.0), none)
  np.testing.assert_array_equal(guide.classifier_free(text, none, 1.0), text)


def test_scale_extrapolates_from_the_unconditional_prediction():
  guided = guide.classifier_free(jnp.array([2.0]), jnp.array([1.0]), 7.5)
  np.testing.assert_allclose(guided, [8.5])  # 1 + 7.5 (2 - 1)


def test_guiding_velocities_equals_guiding_noise():
  # Noise is an affine function of velocity at a given latent, and the
  # weights of guidance sum to one.
  alpha, sigma, noisy = 0.6, 0.8, jnp.array([0.3])
  noise = lambda velocity: alpha * velocity + sigma * noisy
  c, u = jnp.array([1.5]), jnp.array([-0.7])
  np.testing.assert_allclose(
      noise(guide.classifier_free(c, u, 4.0)),
      guide.classifier_free(noise(c), noise(u), 4.0),
      rtol=1e-6,
  )


def test_what_is_kept_off_is_perpendicular_to_the_text():
  text, none, one, two = random.normal(random.key(0), (4, 3, 5, 2))
  weight = jnp.array([[1.0, 0.0, 2.0], [0.5, 0.0, 0.0]])
  kept = guide.keep_off(text, none, [one, two], weight)
  moved, direction = kept - text, text - none
  np.testing.assert_allclose(
      jnp.sum(moved * direction, (1, 2)), 0.0, atol=1e-4
  )
  # Away from the opposed, each batch element by its own weights.
  np.testing.assert_array_equal(moved[1], 0.0)
  assert jnp.sum(moved[2] * (one - none)[2]) < -1.0


def test_a_text_without_effect_divides_by_nothing():
  none, one = random.normal(random.key(0), (2, 1, 4))
  kept = guide.keep_off(none, none, [one], jnp.ones((1, 1)))
  np.testing.assert_allclose(kept, 2 * none - one, rtol=1e-6)
