"""Tests of dreamjax.evaluation.prior: true pictures are recognised."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax.evaluation import prior
from dreamjax.outputs import sheet
from dreamjax.toybox import solids
from dreamjax.toybox import words
from dreamjax.toybox import world

SYMMETRIC = ("mushroom", "tree")


@pytest.fixture(scope="module")
def known():
  return prior.gallery()


def test_true_pictures_are_recognised(known):
  """Other elevations and another background than the gallery's."""
  right = []
  render = jax.jit(world.render, static_argnums=3)
  for index, kind in enumerate(words.KINDS):
    color = index % len(words.COLORS)
    azimuth = np.radians(45.0 * np.arange(8)).astype(np.float32)
    camera = sheet.orbit(azimuth, np.float32(np.radians(12.0)))
    truth = render(solids.make(kind), camera, prior.soft_light(camera), 64)
    paint = jnp.array(list(words.COLORS.values())[color])
    image = np.asarray(world.paint(truth, paint, jnp.array([0.3, 0.4, 0.5])))
    for view in range(8):
      found = prior.classify(image[view], known)
      # A tree looks alike from all sides: any view is right.
      same = kind in SYMMETRIC or found[2] == view
      right.append((found[0] == index, found[1] == color, same))
  assert np.mean(right, axis=0) == pytest.approx(1.0, abs=0.03)
