"""Tests of dreamjax.toybox.pictures."""

import dataclasses

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import config_io
from dreamjax.toybox import pictures
from dreamjax.toybox import words

CONFIG = config_io.load("toybox")


@pytest.fixture(scope="module")
def made():
  render = dataclasses.replace(CONFIG.render, resolution=16)
  config = dataclasses.replace(CONFIG, render=render)
  return pictures.make(config, seed=0, per_kind=16)


def test_recipe_asks_for_views_in_the_words_that_the_prior_learns():
  degrees, texts = zip(*CONFIG.prompt.views)
  assert texts == words.VIEWS
  assert degrees == tuple(45.0 * k for k in range(8))
  assert CONFIG.prompt.overhead == words.OVERHEAD


def test_every_kind_is_seen_from_many_sides(made):
  assert made.layers.shape == (12 * 16, 16, 16, 5)
  assert np.bincount(made.kind).tolist() == [16] * 12
  # Sixteen azimuths, one in each part of the circle.
  part = np.sort(made.azimuth.reshape(12, 16) % (2 * np.pi))
  assert np.diff(part).max() < 2 * np.pi / 8
  low, high = np.radians(CONFIG.camera.elevation_degrees)
  assert low <= made.elevation.min() < 0 and 1 < made.elevation.max() <= high
  covered = made.layers[..., 4].mean((1, 2)) / 255
  assert 0.08 < covered.min() and covered.max() < 0.7


def test_same_seed_same_pictures(made):
  render = dataclasses.replace(CONFIG.render, resolution=16)
  config = dataclasses.replace(CONFIG, render=render)
  again = pictures.make(config, seed=0, per_kind=16)
  np.testing.assert_array_equal(made.layers, again.layers)


def test_compose_paints_and_fills_the_background(made):
  layers = made.layers[:8]
  red, blue = list(words.COLORS).index("red"), list(words.COLORS).index("blue")
  compose = jax.jit(pictures.compose, static_argnums=3)
  paint = lambda color, seed: np.asarray(compose(
      layers, jnp.full(8, color, jnp.int32), random.key(seed),
      CONFIG.background,
  ))
  one, other = paint(red, 0), paint(blue, 0)
  corner = one[:, 0, 0]
  assert np.unique(corner, axis=0).shape[0] == 8  # each its own background
  np.testing.assert_array_equal(corner, other[:, 0, 0])
  painted = layers[..., 3] > 200
  assert painted.any()
  mean = lambda image: image[painted].mean(0)
  assert mean(one)[0] > 2 * mean(one)[2]
  assert mean(other)[2] > 2 * mean(other)[0]
