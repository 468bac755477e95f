"""Adam by hand, its learning rates and the running mean."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import config as config_lib
from dreamjax import optimizer

CONFIG = config_lib.OptimizerConfig(
    table=1e-1, network=1e-2, background=1e-3, warmup=0.0, decay=1.0
)
PARAMS = {
    "table": jnp.array([1.0, -2.0]),
    "network": {"a": jnp.array([0.5]), "b": jnp.array([[3.0]])},
    "background": jnp.array([0.0]),
}
GRADIENT = {
    "table": jnp.array([0.3, -4.0]),
    "network": {"a": jnp.array([1e-3]), "b": jnp.array([[-2.0]])},
    "background": jnp.array([5.0]),
}


def test_first_step_of_each_group_is_its_learning_rate():
  state = optimizer.init(CONFIG, PARAMS)
  params, _ = optimizer.update(CONFIG, PARAMS, GRADIENT, state, 0.0)
  # Adam's first step is the sign of the gradient.
  np.testing.assert_allclose(params["table"], [0.9, -1.9], rtol=1e-5)
  np.testing.assert_allclose(params["network"]["a"], [0.49], rtol=1e-5)
  np.testing.assert_allclose(params["network"]["b"], [[3.01]], rtol=1e-5)
  np.testing.assert_allclose(params["background"], [-1e-3], rtol=1e-5)


def test_two_steps_equal_adam_by_hand():
  params, state = PARAMS, optimizer.init(CONFIG, PARAMS)
  gradients = (0.3, -0.1)
  for value in gradients:
    gradient = {"table": jnp.array([value, value])} | {
        name: GRADIENT[name] for name in ("network", "background")
    }
    params, state = optimizer.update(CONFIG, params, gradient, state, 0.0)
  x, first, second = 1.0, 0.0, 0.0
  for n, value in enumerate(gradients, start=1):
    first = 0.9 * first + 0.1 * value
    second = 0.99 * second + 0.01 * value**2
    x -= 0.1 * (first / (1 - 0.9**n)) / math.sqrt(second / (1 - 0.99**n))
  np.testing.assert_allclose(params["table"][0], x, rtol=1e-5)


def test_clipping_looks_at_all_groups_together():
  config = dataclasses.replace(CONFIG, clip=1.0, epsilon=1.0)
  state = optimizer.init(config, PARAMS)
  params, _ = optimizer.update(config, PARAMS, GRADIENT, state, 0.0)
  length = math.sqrt(0.3**2 + 4**2 + 1e-6 + 2**2 + 5**2)
  clipped = 5.0 / length
  # With epsilon 1 the step is g / (|g| + 1).
  want = -1e-3 * clipped / (clipped + 1)
  np.testing.assert_allclose(params["background"], [want], rtol=1e-5)


@pytest.mark.parametrize(
    "progress, factor",
    [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.55, 0.6), (1.0, 0.2)],
)
def test_rates_warm_up_then_follow_a_cosine(progress, factor):
  config = dataclasses.replace(CONFIG, warmup=0.1, decay=0.2)
  rates = optimizer.rates(config, progress)
  for name, rate in (("table", 1e-1), ("network", 1e-2), ("background", 1e-3)):
    np.testing.assert_allclose(rates[name], factor * rate, atol=1e-7)


def test_rates_are_full_at_once_without_warm_up():
  assert optimizer.rates(CONFIG, 0.0)["table"] == jnp.float32(0.1)


def test_the_mean_forgets_at_its_decay():
  config = dataclasses.replace(CONFIG, ema=0.75)
  mean = optimizer.average(config, {"table": jnp.ones(2)}, {
      "table": jnp.array([5.0, 1.0])
  })
  np.testing.assert_allclose(mean["table"], [2.0, 1.0])
