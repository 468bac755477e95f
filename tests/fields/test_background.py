"""Backgrounds are plain as often as asked, and learnt ones are smooth."""

import dataclasses

from jax import random
import jax.numpy as jnp
import numpy as np

from dreamjax import config as config_lib
from dreamjax.fields import background as background_lib

CONFIG = config_lib.BackgroundConfig()


def test_plain_colours_are_tinted_grays():
  color, plain = background_lib.sample(
      random.key(0), CONFIG, jnp.arange(1024)
  )
  assert color.shape == (1024, 3) and plain.all()
  assert (color >= 0).all() and (color <= 1).all()
  spread = np.ptp(np.asarray(color), axis=-1)
  assert spread.max() <= 2 * CONFIG.plain_tint + 1e-6
  gray = np.asarray(color).mean(axis=-1)
  np.testing.assert_allclose(gray.mean(), 0.55, atol=0.05)


def test_every_view_tosses_its_own_coin():
  config = dataclasses.replace(CONFIG, plain_probability=0.5)
  _, plain = background_lib.sample(random.key(0), config, jnp.arange(1024))
  # Three standard deviations of 1024 coins.
  np.testing.assert_allclose(np.mean(plain), 0.5, atol=0.047)


def test_view_keeps_its_colour_wherever_it_is_drawn():
  whole = background_lib.sample(random.key(0), CONFIG, jnp.arange(4))[0]
  part = background_lib.sample(random.key(0), CONFIG, jnp.array([2]))[0]
  np.testing.assert_array_equal(whole[2:3], part)


def test_learnt_background_is_a_colour_for_every_direction():
  background = background_lib.make(CONFIG)
  params = background.init(random.key(1))
  direction = random.normal(random.key(2), (2, 4, 5, 3))
  color = background.color(params, direction)
  assert color.shape == (2, 4, 5, 3)
  assert (color > 0).all() and (color < 1).all()
