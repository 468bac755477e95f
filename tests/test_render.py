"""Pictures of scenes whose pictures are known."""

import dataclasses
import functools
import re

import jax
from jax import lax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dreamjax import cameras
from dreamjax import config as config_lib
from dreamjax import fields
from dreamjax import occupancy as occupancy_lib
from dreamjax import render as render_lib
from dreamjax import shading
from dreamjax.ops import march

CONFIG = config_lib.RenderConfig(
    resolution=9, steps=64, samples_per_ray=64, occupancy_resolution=8
)
FULL = march.pack(jnp.ones((8, 8, 8), bool))
DISTANCE = 3.0
GRAY = jnp.array([[0.3, 0.4, 0.5]])


STATIC = ("field", "config", "with_normals")
compiled = jax.jit(render_lib.render, static_argnames=STATIC)


@functools.cache
def ball(steepness=60.0, peak=200.0):
  """A soft-edged ball; params = (radius, red, green, blue)."""

  def query(params, position, progress, count=None):
    del progress
    radius = jnp.sqrt(jnp.sum(position**2, axis=-1) + 1e-12)
    inside = jax.nn.sigmoid(steepness * (params[0] - radius))
    return peak * inside, jnp.broadcast_to(params[1:], position.shape)

  return fields.Field(lambda key: None, query, fields.with_slope(query))


BALL = jnp.array([0.5, 0.9, 0.2, 0.1])


@functools.cache
def fog():
  """Density params[0] everywhere; white."""

  def query(params, position, progress, count=None):
    del progress
    return (
        jnp.broadcast_to(params[0], position.shape[:1]),
        jnp.ones_like(position),
    )

  return fields.Field(lambda key: None, query, fields.with_slope(query))


def front(num_views=1):
  return cameras.orbit(
      jnp.linspace(0.0, 1.0, num_views), 0.2, 0.7, DISTANCE
  )


def picture(field, params, with_normals=True, **changes):
  """render() of one front view with plain defaults."""
  camera = changes.pop("camera", front())
  num_views = camera.fov.shape[0]
  config = changes.pop("config", CONFIG)
  arguments = dict(
      background=jnp.broadcast_to(GRAY, (num_views, 3)),
      camera=camera,
      light=shading.unlit(num_views),
      bits=FULL,
      config=config,
      jitter=jnp.full((num_views,) + (config.resolution,) * 2, 0.5),
      progress=1.0,
  )
  arguments.update(changes)
  return compiled(
      field, params, with_normals=with_normals, **arguments
  )


def test_empty_scene_shows_the_background():
  images, losses, overflow = picture(fog(), jnp.zeros(1))
  np.testing.assert_allclose(
      images.color, np.broadcast_to(GRAY, (1, 9, 9, 3)), rtol=1e-6
  )
  assert (images.opacity == 0).all() and (images.depth == 0).all()
  assert (images.normal == 0).all() and overflow == 0
  np.testing.assert_allclose(losses["opacity"], 0.1, rtol=1e-6)
  assert losses["orientation"] == 0 and losses["z_variance"] == 0


def test_unoccupied_scene_shows_the_background():
  images, _, _ = picture(ball(), BALL, bits=jnp.zeros_like(FULL))
  assert (images.opacity == 0).all()


def test_background_image_is_seen_where_nothing_is():
  behind = random.uniform(random.key(0), (1, 9, 9, 3))
  images, _, _ = picture(fog(), jnp.zeros(1), background=behind)
  np.testing.assert_allclose(images.color, behind, rtol=1e-6)


def test_fog_thins_out_with_the_length_of_the_ray_in_the_ball():
  images, _, _ = picture(fog(), jnp.array([0.8]))
  rays = cameras.camera_rays(front(), 9, 9)
  middle = jnp.sum(rays.origin * rays.direction, -1)
  missed = jnp.sum(rays.origin**2, -1) - middle**2
  chord = 2 * jnp.sqrt(jnp.maximum(1 - missed, 0.0))
  # Candidates stand for whole steps: half a step of 2 / 64 may be missed.
  np.testing.assert_allclose(
      images.opacity.ravel(), 1 - np.exp(-0.8 * chord), atol=0.8 / 64
  )


def test_centre_of_a_ball_shows_its_colour_its_distance_and_its_normal():
  images, losses, _ = picture(ball(), BALL)
  centre = jax.tree.map(lambda leaf: leaf[0, 4, 4], images)
  np.testing.assert_allclose(centre.color, BALL[1:], atol=1e-3)
  np.testing.assert_allclose(centre.opacity, 1.0, atol=1e-3)
  np.testing.assert_allclose(centre.depth, DISTANCE - 0.5, atol=0.04)
  towards = front().origin[0] / DISTANCE
  np.testing.assert_allclose(centre.normal, towards, atol=5e-3)
  assert losses["orientation"] < 1e-3 and losses["z_variance"] < 1e-3


def test_lamp_at_the_camera_darkens_the_rim():
  light = shading.Light(
      front().origin, jnp.ones(1), jnp.zeros(1), jnp.zeros(1, bool)
  )
  images, _, _ = picture(ball(), BALL, light=light)
  centre = images.color[0, 4, 4]
  np.testing.assert_allclose(centre, BALL[1:], atol=1e-2)
  # Towards the ball's rim at sine s the cosine is sqrt(1 - s^2).
  rays = cameras.camera_rays(front(), 9, 9)
  direction = rays.direction.reshape(9, 9, 3)[4, 5]
  middle = -jnp.dot(rays.origin[0], direction)
  sine = jnp.linalg.norm(rays.origin[0] + middle * direction) / 0.5
  np.testing.assert_allclose(
      images.color[0, 4, 5], BALL[1:] * jnp.sqrt(1 - sine**2), atol=0.06
  )


def test_every_view_has_its_own_lamp():
  lamps = shading.Light(
      jnp.array([[5.0, 0, 0], [0, 0, 5.0]]), jnp.ones(2),
      jnp.array([1.0, 0.1]), jnp.array([False, True]),
  )
  camera = front(2)
  both, _, _ = picture(ball(), BALL, camera=camera, light=lamps)
  for view in range(2):
    only = lambda leaf: leaf[view:view + 1]
    alone, _, _ = picture(
        ball(), BALL, camera=jax.tree.map(only, camera),
        light=jax.tree.map(only, lamps),
    )
    np.testing.assert_allclose(both.color[view], alone.color[0], atol=1e-5)


def test_albedo_is_the_same_with_and_without_normals():
  with_normals, _, _ = picture(ball(), BALL)
  without, losses, _ = picture(ball(), BALL, with_normals=False)
  np.testing.assert_allclose(without.color, with_normals.color, atol=1e-6)
  np.testing.assert_allclose(without.depth, with_normals.depth, atol=1e-6)
  assert (without.normal == 0).all() and losses["orientation"] == 0


def test_surface_seen_from_behind_is_an_orientation_loss():
  def shell(outwards):
    """Matter between 0.6 and 0.9 that thickens outwards or inwards."""

    def query(params, position, progress, count=None):
      del params, progress
      radius = jnp.linalg.norm(position, axis=-1)
      slope = (radius - 0.5) if outwards else (1.0 - radius)
      inside = (radius > 0.6) & (radius < 0.9)
      return jnp.where(inside, 20 * slope, 0.0), jnp.ones_like(position)

    return fields.Field(None, query, fields.with_slope(query))

  inside = cameras.orbit(0.0, 0.0, 0.7, 0.1)
  _, facing, _ = picture(shell(True), None, camera=inside)
  _, turned, _ = picture(shell(False), None, camera=inside)
  assert facing["orientation"] < 1e-3 and turned["orientation"] > 0.1


def test_jitter_of_half_a_step_moves_every_sample():
  still, _, _ = picture(ball(), BALL)
  moved, _, _ = picture(ball(), BALL, jitter=jnp.full((1, 9, 9), 0.9))
  assert 0 < np.abs(still.depth - moved.depth).max() < 2 / 64


def test_jitter_of_a_view_depends_on_its_number_alone():
  whole = render_lib.ray_jitter(random.key(0), jnp.arange(4), 5)
  part = render_lib.ray_jitter(random.key(0), jnp.array([2]), 5)
  np.testing.assert_array_equal(whole[2:3], part)
  assert (whole >= 0).all() and (whole < 1).all()
  assert (whole[0] != whole[1]).all()


def test_too_small_a_budget_is_reported():
  config = dataclasses.replace(CONFIG, samples_per_ray=8)
  _, _, overflow = picture(fog(), jnp.ones(1), config=config)
  _, _, enough = picture(fog(), jnp.ones(1))
  assert overflow > 0 and enough == 0


@pytest.mark.parametrize("chunk", [100, 1000])
def test_chunks_do_not_show(chunk):
  whole = jax.jit(jax.value_and_grad(loss))(BALL)
  config = dataclasses.replace(CONFIG, samples_per_chunk=chunk)
  parts = jax.jit(jax.value_and_grad(
      functools.partial(loss, config=config)
  ))(BALL)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      whole, parts,
  )


def loss(params, config=CONFIG):
  """A scalar that depends on all that render returns.

  But for the orientation loss: it holds its weights still, which differences
  do not.
  """
  light = shading.Light(
      jnp.array([[1.0, 2.0, 3.0]]), jnp.ones(1), jnp.full(1, 0.3),
      jnp.zeros(1, bool),
  )
  images, losses, _ = picture(
      ball(8.0, 8.0), params, light=light, config=config
  )
  return (
      jnp.mean(images.color * jnp.array([1.0, 2.0, -1.0]))
      + jnp.mean(images.depth) + jnp.mean(images.normal[..., 2])
      + sum(losses.values()) - losses["orientation"]
  )


def test_gradient_matches_differences():
  value = jax.jit(loss)
  gradient = jax.jit(jax.grad(loss))(BALL)
  for index in range(4):
    step = 2e-3 * jnp.eye(4)[index]
    difference = (value(BALL + step) - value(BALL - step)) / 4e-3
    # Float32 values near 3 differ by 2e-7: 1e-4 of slope.
    np.testing.assert_allclose(
        gradient[index], difference, rtol=2e-3, atol=1e-3
    )


@pytest.mark.parametrize("field, params", [
    (fog(), jnp.zeros(1)), (ball(), BALL), (ball(1e3, 1e6), BALL),
    (ball(), BALL.at[0].set(-3.0)),
])
def test_gradients_are_finite_for_empty_and_for_solid_scenes(field, params):
  def total(params):
    images, losses, _ = picture(field, params)
    return sum(
        jnp.sum(leaf) for leaf in jax.tree.leaves((images, losses))
    )

  value, gradient = jax.jit(jax.value_and_grad(total))(params)
  assert np.isfinite(value) and np.isfinite(gradient).all()


def test_gradient_is_finite_when_no_ray_meets_anything():
  gradient = jax.jit(jax.grad(lambda params: jnp.sum(
      picture(ball(), params, bits=jnp.zeros_like(FULL))[0].color
  )))(BALL)
  np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize(
    "use, columns",
    [
        (lambda images, losses: images.color, ["3"]),
        (lambda images, losses: images.normal, ["3"]),
        # Two moments, and the opacity, which comes with the colour.
        (lambda images, losses: losses["z_variance"], ["2", "3"]),
    ],
)
def test_only_what_a_loss_asks_for_is_composited(use, columns):
  def loss(params):
    images, losses, _ = picture(ball(), params)
    return jnp.sum(use(images, losses) ** 2)

  text = jax.jit(jax.grad(loss)).lower(BALL).compile().as_text()
  calls = [
      line for line in text.splitlines()
      if 'custom_call_target="dreamjax_composite_gradient"' in line
  ]
  slots = CONFIG.samples_per_ray * CONFIG.resolution**2
  found = [
      re.search(rf" = .*?f32\[{slots},(\d+)\]", line)[1] for line in calls
  ]
  assert sorted(found) == columns


def test_scenes_of_several_prompts_are_rendered_together():
  scenes = jnp.stack([BALL, BALL.at[0].set(0.3)])
  grids = jnp.stack([FULL, FULL.at[:4].set(0)])
  together, _, _ = jax.jit(jax.vmap(
      lambda params, bits: picture(ball(), params, bits=bits)
  ))(scenes, grids)
  for index in range(2):
    alone, _, _ = picture(ball(), scenes[index], bits=grids[index])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[index], b, atol=1e-5),
        together, alone,
    )


def test_gradients_of_several_prompts_are_those_of_each():
  config = dataclasses.replace(CONFIG, samples_per_chunk=1000)
  gradient = jax.grad(functools.partial(loss, config=config))
  scenes = jnp.stack([BALL, BALL.at[0].set(0.3)])
  together = jax.jit(jax.vmap(gradient))(scenes)
  alone = jnp.stack([jax.jit(gradient)(scene) for scene in scenes])
  np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("with_normals", [False, True])
def test_evaluation_views_equal_training_views(monkeypatch, with_normals):
  monkeypatch.setattr(render_lib, "_BLOCK", 50)
  camera = front(2)
  light = shading.unlit(2)
  background = jnp.broadcast_to(GRAY, (2, 3))
  views = jax.jit(
      render_lib.render_views, static_argnames=STATIC + ("size",)
  )(
      ball(), BALL, background, camera, light, FULL, CONFIG, 1.0,
      size=9, with_normals=with_normals,
  )
  images, _, _ = picture(
      ball(), BALL, camera=camera, with_normals=with_normals
  )
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), views, images
  )


@pytest.mark.slow
def test_hash_grid_learns_a_scene_from_its_shaded_pictures():
  config = dataclasses.replace(
      CONFIG, resolution=32, occupancy_resolution=32, samples_per_chunk=8192
  )
  camera_config = config_lib.CameraConfig()
  light_config = config_lib.ShadingConfig(textureless_probability=0.0)
  field = fields.FIELDS["hashgrid"](
      config_lib.FieldConfig(
          levels=4, features=4, log2_table_size=14, base_resolution=8,
          max_resolution=64, width=32,
      ),
      config.bound,
  )
  views = jnp.arange(4)

  def pictures(field, params, bits, key, progress):
    """Shaded training views, the same for the same key."""
    keys = random.split(key, 3)
    camera = cameras.sample_cameras(keys[0], camera_config, views, 4)
    light = shading.sample_lights(
        keys[1], light_config, camera, views, progress
    )
    return render_lib.render(
        field, params, jnp.full((4, 3), 0.5), camera, light, bits, config,
        render_lib.ray_jitter(keys[2], views, 32), progress, True,
    )[0].color

  def error(params, bits, key, progress):
    full = jnp.full_like(bits, 255)
    target = pictures(ball(), BALL, full, key, progress)
    return jnp.mean(
        (pictures(field, params, bits, key, progress) - target) ** 2
    )

  optimizer = optax.adam(5e-3, b2=0.99, eps=1e-15)

  def step(carry, index):
    params, state, occupancy = carry
    key = random.fold_in(random.key(0), index)
    progress = index.astype(jnp.float32) / 100
    density = lambda position: field.query(params, position, progress)[0]
    occupancy = lax.cond(
        index % config.occupancy_every == 0,
        lambda grid: occupancy_lib.update(key, density, grid, config),
        lambda grid: grid,
        occupancy,
    )
    value, gradient = jax.value_and_grad(error)(
        params, occupancy.bits, key, progress
    )
    with jax.numpy_dtype_promotion("standard"):  # Optax mixes dtypes.
      update, state = optimizer.update(gradient, state)
    return (optax.apply_updates(params, update), state, occupancy), value

  params = field.init(random.key(1))
  start = params, optimizer.init(params), occupancy_lib.init(config)
  _, errors = jax.jit(lambda start: lax.scan(step, start, jnp.arange(100)))(
      start
  )
  assert np.mean(errors[-10:]) < 1e-3 < 1e-2 < errors[0]
