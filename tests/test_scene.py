"""What a state looks like from outside."""

import dataclasses

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import cameras
from dreamjax import config as config_lib
from dreamjax import fields
from dreamjax import scene
from dreamjax import state as state_lib
from dreamjax.outputs import sheet

CONFIG = config_lib.Config(
    field=config_lib.FieldConfig(
        kind="mlp", width=8, layers=1, frequencies=1, blob_scale=60.0
    ),
    render=config_lib.RenderConfig(steps=64, occupancy_resolution=8),
    output=config_lib.OutputConfig(image_size=17),
    train=config_lib.TrainConfig(steps=10),
)


@pytest.fixture(name="state", scope="module")
def fixture_state():
  """Two prompts; only the mean of the parameters may be looked at."""
  state = jax.jit(state_lib.init, static_argnums=0)(CONFIG, random.key(0))
  state = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), state)
  broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), state.params)
  bias = state.ema["network"]["Dense_3"]["bias"]
  bias[1] = [-1e3, 0, 0, 0]  # Nothing there.
  return state._replace(params=broken, step=np.array([5, 20], np.int32))


@pytest.fixture(name="seen", scope="module")
def fixture_seen(state):
  """The blob, of radius 1/2 and gray, from in front and from above."""
  camera = sheet.orbit(np.zeros(2), np.array([0.0, np.pi / 2]))
  return camera, scene.make(CONFIG, state, 0).render_views(camera)


def test_the_object_stands_on_white(seen):
  _, views = seen
  assert views.color.shape == views.shaded.shape == (2, 17, 17, 3)
  np.testing.assert_allclose(views.color[:, 0, 0], 1.0)
  np.testing.assert_allclose(views.shaded[:, 0, 0], 1.0)
  assert (views.opacity[:, 0, 0] == 0).all()
  np.testing.assert_allclose(views.opacity[:, 8, 8], 1.0, atol=1e-3)
  np.testing.assert_allclose(views.color[:, 8, 8], 0.5, atol=1e-3)


def test_normals_point_out_of_the_object(seen):
  camera, views = seen
  middle = views.normal[:, 8, 8]
  np.testing.assert_allclose(middle, camera.rotation[..., 2], atol=0.05)


def test_light_falls_from_over_the_left_shoulder(seen):
  _, views = seen
  for shaded, color in zip(views.shaded, views.color):
    left, right, below = shaded[6, 6, 0], shaded[6, 10, 0], shaded[10, 10, 0]
    assert left > 1.1 * right > 1.1 * 1.1 * below
    assert (shaded <= color + 1e-5).all()
    assert shaded[8, 8, 0] > 0.3 * color[8, 8, 0]


def test_each_prompt_has_its_own_scene(state, seen):
  camera, _ = seen
  views = scene.make(CONFIG, state, 1).render_views(camera)
  np.testing.assert_allclose(views.color, 1.0)


def test_points_are_those_of_the_field_at_the_run_s_progress(state):
  schedule = config_lib.Schedule(1.0, 0.0)
  config = dataclasses.replace(
      CONFIG, field=dataclasses.replace(CONFIG.field, ipe_variance=schedule)
  )
  ema = jax.tree.map(np.copy, state.ema)
  ema["network"]["Dense_3"]["kernel"][:] = 1.0
  state = state._replace(ema=ema)
  position = random.normal(random.key(1), (7, 3))
  field = fields.make(config.field, 1.0)
  for index, progress in ((0, 0.5), (1, 1.0)):
    params = jax.tree.map(lambda leaf, index=index: leaf[index], ema)
    density, albedo = field.query(params, position, progress)
    found = scene.make(config, state, index).query(position)
    np.testing.assert_allclose(found[0], density, rtol=1e-4)
    np.testing.assert_allclose(found[1], albedo, rtol=1e-4)
