"""Schedules start, move and arrive as their words say."""

import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import config as config_lib
from dreamjax import schedules


@pytest.mark.parametrize("shape", config_lib.SHAPES)
def test_every_shape_waits_moves_and_arrives(shape):
  schedule = config_lib.Schedule(4.0, 0.5, 0.25, 0.75, shape)
  progress = jnp.linspace(0.0, 1.0, 101)
  value = np.asarray(schedules.value(schedule, progress))
  np.testing.assert_allclose(value[:26], 4.0, rtol=1e-6)
  np.testing.assert_allclose(value[75:], 0.5, rtol=1e-5)
  assert (np.diff(value[25:76]) < 0).all()


@pytest.mark.parametrize("shape, halfway", [
    ("linear", 2.5), ("cosine", 2.5), ("exponential", 2.0),
    ("sqrt", 1 + 3 * np.sqrt(0.5)),
])
def test_halfway_value_is_the_closed_form(shape, halfway):
  schedule = config_lib.Schedule(1.0, 4.0, 0.0, 1.0, shape)
  np.testing.assert_allclose(
      schedules.value(schedule, 0.5), halfway, rtol=1e-6
  )


def test_empty_span_is_a_jump():
  schedule = config_lib.Schedule(1.0, 2.0, 0.5, 0.5)
  np.testing.assert_array_equal(
      schedules.value(schedule, jnp.array([0.0, 0.49, 0.5, 1.0])), [1, 1, 2, 2]
  )


def test_constant_never_moves():
  schedule = config_lib.constant(0.3)
  np.testing.assert_array_equal(
      schedules.value(schedule, jnp.linspace(0, 1, 5)), np.float32(0.3)
  )
