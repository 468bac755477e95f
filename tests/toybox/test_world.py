"""Tests of dreamjax.toybox.solids and .world: closed forms, then brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import cameras
from dreamjax import shading
from dreamjax.toybox import kinds
from dreamjax.toybox import solids
from dreamjax.toybox import words
from dreamjax.toybox import world

FOV = np.radians(40.0)
SIZE = 32
render = jax.jit(world.render, static_argnums=(3, 4))


def look(azimuth=0.0, elevation=0.0):
  return cameras.orbit(
      jnp.array([azimuth], jnp.float32), jnp.array([elevation], jnp.float32),
      FOV, cameras.frame_distance(FOV),
  )


def unlit(camera):
  return shading.unlit(camera.fov.shape[0])


def test_ball_has_the_depth_and_normal_of_a_ball(monkeypatch):
  part = kinds.Part("ellipsoid", (0, 0, 0), (0.5, 0.5, 0.5), (1, 0, 0))
  monkeypatch.setitem(kinds.PARTS, "mug", [part])
  toy = solids.make("mug")
  radius = 1 / toy.local[0, 0, 0]
  assert radius == pytest.approx(kinds.RADIUS, rel=5e-3)
  camera = look()
  truth = render(toy, camera, unlit(camera), SIZE, 1)
  rays = cameras.camera_rays(camera, SIZE, SIZE)
  o = np.asarray(rays.origin) - toy.center[0]
  d = np.asarray(rays.direction)
  b = (o * d).sum(1)
  root = b**2 - (o**2).sum(1) + radius**2
  depth = np.where(root > 0, -b - np.sqrt(np.maximum(root, 0)), 0)
  np.testing.assert_allclose(truth.depth.ravel(), depth, atol=2e-4)
  np.testing.assert_array_equal(truth.opacity.ravel() > 0, root > 0)
  normal = (o + depth[:, None] * d) / radius * (root > 0)[:, None]
  np.testing.assert_allclose(truth.normal.reshape(-1, 3), normal, atol=1e-3)


@pytest.mark.parametrize("kind", words.KINDS)
def test_rays_stop_where_the_solid_begins(kind):
  toy = solids.make(kind)
  camera = look(0.7, 0.4)
  truth = render(toy, camera, unlit(camera), SIZE, 1)
  rays = cameras.camera_rays(camera, SIZE, SIZE)
  contains = jax.jit(solids.contains)
  inside = lambda t: contains(toy, rays.origin + t[:, None] * rays.direction)
  depth = truth.depth.ravel()
  hit = np.asarray(truth.opacity.ravel() > 0)
  assert hit.any()
  assert not np.asarray(inside(depth - 2e-3))[hit].any()
  # Just behind the surface is solid, but for grazed edges and thin rims.
  assert np.asarray(inside(depth + 2e-3))[hit].mean() > 0.97
  for t in np.linspace(1.5, 4.5, 60):
    missed = np.asarray(inside(jnp.full(depth.shape, t, jnp.float32)))[~hit]
    assert missed.mean() < 2e-3


@pytest.mark.parametrize("kind", words.KINDS)
def test_normals_are_the_slope_of_depth(kind):
  """A step along the surface is at right angles to the normal."""
  toy = solids.make(kind)
  camera = look(0.3, 0.5)
  truth = render(toy, camera, unlit(camera), 128, 1)
  rays = cameras.camera_rays(camera, 128, 128)
  point = np.asarray(
      rays.origin + truth.depth.ravel()[:, None] * rays.direction
  ).reshape(128, 128, 3)
  part = np.asarray(truth.part[0])
  step = point[:, 1:] - point[:, :-1]
  same = (part[:, 1:] == part[:, :-1]) & (part[:, 1:] >= 0)
  same &= np.linalg.norm(step, axis=-1) < 0.05
  normal = np.asarray(truth.normal[0])[:, 1:]
  along = (step * normal).sum(-1) / np.linalg.norm(step, axis=-1).clip(1e-6)
  assert np.quantile(np.abs(along[same]), 0.9) < 0.15


@pytest.mark.parametrize("kind", words.KINDS)
def test_toy_fits_its_ball(kind):
  toy = solids.make(kind)
  rng = np.random.default_rng(0)
  point = rng.normal(size=(40_000, 3))
  point /= np.linalg.norm(point, axis=1, keepdims=True)
  inside = jax.jit(solids.contains)
  scaled = lambda radius: jnp.asarray(radius * point, jnp.float32)
  assert not np.asarray(inside(toy, scaled(kinds.RADIUS * 1.01))).any()
  assert np.asarray(inside(toy, scaled(kinds.RADIUS * 0.93))).any()


def test_left_is_on_the_right_of_the_front_view():
  """The mug's handle is at its own left, +y; it pushes its dot to the left."""
  camera = look()
  truth = render(solids.make("mug"), camera, unlit(camera), SIZE, 2)
  dot = np.asarray(truth.front[0])
  column = (dot.sum(0) * (np.arange(SIZE) + 0.5)).sum() / dot.sum()
  assert column < SIZE / 2 - 1


@pytest.mark.parametrize("kind", words.KINDS)
def test_front_feature_is_large_in_front_and_absent_behind(kind):
  toy = solids.make(kind)
  if kind in ("mushroom", "tree"):
    assert not toy.front.any()
    return
  share = []
  for azimuth in (0.0, np.pi):
    camera = look(azimuth, np.radians(10.0))
    truth = render(toy, camera, unlit(camera), 64, 2)
    share.append(float(truth.front.mean()))
  assert share[0] > 0.015  # of the image: 60 pixels of 4096
  assert share[1] == 0.0


def test_paint_and_background_add_up():
  toy = solids.make("car")
  camera = look(0.5, 0.3)
  truth = render(toy, camera, unlit(camera), SIZE, 2)
  white = world.paint(truth, jnp.ones(3), jnp.ones(3))
  assert float(white.max()) <= 1.0 + 1e-5
  black = world.paint(truth, jnp.zeros(3), jnp.zeros(3))
  red = world.paint(truth, jnp.array([1.0, 0, 0]), jnp.zeros(3))
  painted = np.asarray(truth.painted)
  np.testing.assert_allclose(red[..., 0] - black[..., 0], painted, atol=1e-6)
  np.testing.assert_allclose(red[..., 1], black[..., 1], atol=1e-6)
  assert painted.max() == pytest.approx(1.0)


def test_light_falls_from_the_lamp():
  """Unlit parts of a ball turn dark, the lit ones keep their colour."""
  toy = solids.make("mushroom")
  camera = look()
  light = shading.Light(
      position=jnp.array([[0.0, 0.0, 1.0]]), finite=jnp.zeros(1),
      ambient=jnp.full(1, 0.25), textureless=jnp.ones(1, bool),
  )
  truth = render(toy, camera, light, 64, 1)
  lit = np.asarray(truth.painted[0])
  up = np.asarray(truth.normal[0])[..., 2]
  seen = lit > 0
  expected = 0.25 + 0.75 * np.maximum(up[seen], 0)
  np.testing.assert_allclose(lit[seen], expected, atol=1e-4)


def test_unknown_kind_is_refused():
  with pytest.raises(ValueError, match="want one of"):
    solids.make("dragon")
