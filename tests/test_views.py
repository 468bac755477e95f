"""The views of a step."""

import dataclasses
import functools

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import config as config_lib
from dreamjax import fields
from dreamjax import render
from dreamjax import state as state_lib
from dreamjax import views
from dreamjax.ops import march

CONFIG = config_lib.Config(
    background=config_lib.BackgroundConfig(plain_probability=0.5),
    field=config_lib.FieldConfig(kind="mlp", width=8, layers=1, frequencies=1),
    render=config_lib.RenderConfig(
        resolution=6, steps=16, samples_per_ray=16, occupancy_resolution=4
    ),
    loss=config_lib.LossConfig(
        opacity=config_lib.Schedule(0.0, 2.0),
        entropy=config_lib.constant(3.0),
    ),
    train=config_lib.TrainConfig(views=8),
)
FULL = march.pack(jnp.ones((4, 4, 4), bool))
FIELD = fields.make(CONFIG.field, 1.0)


@functools.cache
def parts():
  """(params, Draw of 8 views)."""
  state = jax.jit(state_lib.init, static_argnums=0)(CONFIG, random.key(0))
  drawn = jax.jit(views.draw, static_argnums=1)(
      random.key(1), CONFIG, jnp.arange(8), 0.5
  )
  return state.params, drawn


@functools.partial(jax.jit, static_argnums=0)
def look(config, params, drawn, progress):
  return views.look(config, FIELD, params, drawn, FULL, progress, False)


def test_a_view_is_drawn_from_its_number_alone():
  _, whole = parts()
  some = jax.jit(views.draw, static_argnums=1)(
      random.key(1), CONFIG, jnp.array([6, 1]), 0.5
  )
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(
          a, b[jnp.array([6, 1])], rtol=1e-6
      ),
      some,
      whole,
  )


def test_different_things_are_drawn_from_different_keys():
  _, drawn = parts()
  uniform = [drawn.jitter[0, 0, 0], drawn.jitter[1, 0, 0]]
  assert len({float(value) for value in uniform}) == 2
  assert 0 < drawn.is_plain.sum() < 8


def test_regularisers_are_weighed_by_their_schedules():
  params, drawn = parts()
  nothing = dataclasses.replace(CONFIG, loss=config_lib.LossConfig())
  assert look(nothing, params, drawn, 0.25)[1] == 0
  _, terms, _ = jax.jit(
      render.render, static_argnames=("field", "config", "with_normals")
  )(
      FIELD, params, drawn.plain, drawn.camera, drawn.light, FULL,
      config=CONFIG.render, jitter=drawn.jitter, progress=0.25,
      with_normals=False,
  )
  _, penalty, _ = look(CONFIG, params, drawn, 0.25)
  want = 0.25 * 2.0 * terms["opacity"] + 3.0 * terms["entropy"]
  np.testing.assert_allclose(penalty, want, rtol=1e-5)


def test_views_show_a_plain_colour_or_the_learnt_background():
  params, drawn = parts()
  images, _, _ = look(CONFIG, params, drawn, 0.5)
  # Constant over the corners only where it is plain.
  corners = images.color[:, ::5, ::5].reshape(8, 4, 3)
  assert (images.opacity[:, 0, 0] == 0).all()
  is_flat = np.ptp(corners, axis=1).max(axis=-1) < 1e-6
  np.testing.assert_array_equal(is_flat, drawn.is_plain)
  np.testing.assert_allclose(
      images.color[drawn.is_plain, 0, 0], drawn.plain[drawn.is_plain], rtol=1e-6
  )


def normals(
    steps=10, orientation=config_lib.constant(0.0), warmup=0.0, **shading
):
  """(numbers of the steps with normals, of those that see them as latents)."""
  config = config_lib.Config(
      guidance=config_lib.GuidanceConfig(latent_warmup=warmup),
      shading=config_lib.ShadingConfig(**shading),
      loss=config_lib.LossConfig(orientation=orientation),
      train=config_lib.TrainConfig(steps=steps),
  )
  return tuple(
      np.flatnonzero([getattr(phase, name) for phase in views.phases(config)])
      .tolist()
      for name in views.Phase._fields
  )


@pytest.mark.parametrize(
    "steps, changes",
    [
        (range(3, 10), {"albedo_until": 0.3}),
        (range(10), {"albedo_until": 0.0}),
        ([], {"albedo_until": 1.0}),
        ([], {"shaded_probability": 0.0}),
        (range(10), {"shaded_probability": 0.0,
                     "orientation": config_lib.constant(1e-3)}),
        (range(5, 10), {"shaded_probability": 0.0,
                        "orientation": config_lib.Schedule(0.0, 1.0, 0.4)}),
        (range(4), {"shaded_probability": 0.0,
                    "orientation": config_lib.Schedule(1.0, 0.0, 0.0, 0.4)}),
    ],
)
def test_normals_are_there_for_light_and_for_orientation(steps, changes):
  assert normals(**changes) == (list(steps), [])


def test_normals_stand_for_latents_first():
  assert normals(warmup=0.2, albedo_until=0.3) == (
      [0, 1, *range(3, 10)], [0, 1]
  )
