"""Convolutions and their derivatives."""

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax.diffusion import layers


CONVOLUTIONS = [(3, 1, None, 8), (1, 1, None, 8), (3, 2, ((0, 1), (0, 1)), 8),
                (3, 2, 1, 7), (5, 3, ((2, 0), (1, 3)), 9)]


@pytest.mark.parametrize("size, stride, padding, side", CONVOLUTIONS)
def test_convolutions_have_the_derivatives_of_xla_s(
    size, stride, padding, side
):
  keys = random.split(random.key(0), 3)
  x = random.normal(keys[0], (2, side, side + 1, 3))
  kernel = random.normal(keys[1], (size, size, 3, 5))
  module = layers.conv(
      5, jnp.float32, None, size=size, stride=stride, padding=padding
  )

  def ours(x, kernel):
    params = {"kernel": kernel, "bias": jnp.zeros(5)}
    return module.apply({"params": params}, x)

  def xla_s(x, kernel):
    around = (size - 1) // 2 if padding is None else padding
    around = ((around, around),) * 2 if isinstance(around, int) else around
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), around,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  value, pull = jax.vjp(ours, x, kernel)
  want, pull_want = jax.vjp(xla_s, x, kernel)
  np.testing.assert_allclose(value, want, rtol=1e-6)
  weight = random.normal(keys[2], want.shape)
  for found, exact in zip(pull(weight), pull_want(weight)):
    # Sums of up to 300 products of numbers near one.
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


def test_upsampling_convolves_every_pixel_four_times():
  keys = random.split(random.key(0), 4)
  x = random.normal(keys[0], (2, 4, 5, 3))
  kernel = random.normal(keys[1], (3, 3, 3, 6))
  bias = random.normal(keys[2], (6,))
  module = layers.upsample(6, jnp.float32, None)

  def ours(x, kernel):
    params = {"kernel": kernel, "bias": bias}
    return module.apply({"params": params}, x)

  def plain(x, kernel):
    large = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return bias + jax.lax.conv_general_dilated(
        large, kernel, (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  value, pull = jax.vjp(ours, x, kernel)
  want, pull_want = jax.vjp(plain, x, kernel)
  # Sums of 27 products of numbers near one, in another order.
  np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-5)
  weight = random.normal(keys[3], want.shape)
  for found, exact in zip(pull(weight), pull_want(weight)):
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


def test_upsampling_never_makes_the_large_image():
  module = layers.upsample(6, jnp.float32, None)
  x = jnp.zeros((1, 4, 4, 5))
  params = jax.eval_shape(module.init, random.key(0), x)
  text = jax.jit(module.apply).lower(params, x).as_text()
  assert "1x8x8x6xf32" in text and "1x8x8x5xf32" not in text


def test_inside_a_loop_no_convolution_is_left_in_a_layout_that_is_slow():
  module = layers.conv(4, jnp.float32, None)
  params = {"kernel": jnp.ones((3, 3, 4, 4)), "bias": jnp.zeros(4)}

  def descend(x, count):
    slope = jax.grad(lambda x: jnp.sum(module.apply({"params": params}, x)**2))
    return jax.lax.fori_loop(0, count, lambda _, x: x - slope(x), x)

  compiled = jax.jit(descend).lower(jnp.ones((1, 8, 8, 4)), 3).compile()
  text = compiled.as_text()
  assert "01io->b01f" in text and "01oi->b01f" not in text
