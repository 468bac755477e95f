"""The truth that finished toys are compared with."""

import jax
import pytest

from dreamjax import shading
from dreamjax.evaluation import truth
from dreamjax.toybox import solids
from dreamjax.toybox import words
from dreamjax.toybox import world


@pytest.mark.parametrize("kind", ["car", "house"])
def test_a_mask_is_as_large_as_its_toy(kind):
  camera = truth.camera()
  light = shading.unlit(camera.fov.shape[0])
  exact = jax.jit(world.render, static_argnums=(3, 4))(
      solids.make(kind), camera, light, 64, 8
  )
  views = truth.true_views(words.parse(f"a red {kind}"), 64)
  area = float(exact.opacity.sum())
  assert views.mask.sum() == pytest.approx(area, rel=4e-3)
