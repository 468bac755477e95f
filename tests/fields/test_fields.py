"""Every scene representation keeps the contract of `field.Field`."""

import dataclasses

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import config as config_lib
from dreamjax import fields
from dreamjax.fields import field as field_lib
from dreamjax.fields import hashgrid
from dreamjax.fields import mlp

SMALL = config_lib.FieldConfig(
    levels=3, features=2, log2_table_size=9, base_resolution=4,
    max_resolution=16, width=8, layers=2, frequencies=3,
    active_levels=config_lib.constant(3), smoothstep=True,
)
PEAKS = {"exp": (5.0, 0.2), "softplus": (10.0, 0.5)}


def configured(activation, **changes):
  scale, width = PEAKS[activation]
  return dataclasses.replace(
      SMALL, activation=activation, blob_scale=scale, blob_width=width,
      **changes,
  )


def roughened(field, seed=0):
  """Parameters far from their initial values, so that nothing is flat."""
  params = field.init(random.key(seed))
  leaves, tree = jax.tree.flatten(params)
  keys = random.split(random.key(seed + 1), len(leaves))
  return jax.tree.unflatten(tree, [
      leaf + 0.3 * random.normal(key, leaf.shape)
      for key, leaf in zip(keys, leaves)
  ])


POINTS = random.uniform(random.key(9), (129, 3), minval=-0.7, maxval=0.7)

every_field = pytest.mark.parametrize("kind", sorted(fields.FIELDS))
every_activation = pytest.mark.parametrize(
    "activation", field_lib.ACTIVATIONS
)


@every_field
@every_activation
def test_density_and_albedo_have_their_shapes_and_ranges(kind, activation):
  field = fields.FIELDS[kind](configured(activation), 1.0)
  density, albedo = field.query(roughened(field), POINTS, 1.0)
  assert density.shape == (129,) and density.dtype == jnp.float32
  assert albedo.shape == (129, 3) and albedo.dtype == jnp.float32
  assert (density >= 0).all() and (albedo > 0).all() and (albedo < 1).all()


@every_field
def test_no_points_give_no_values(kind):
  field = fields.FIELDS[kind](SMALL, 1.0)
  density, albedo = field.query(
      field.init(random.key(0)), jnp.zeros((0, 3)), 0.0
  )
  assert density.shape == (0,) and albedo.shape == (0, 3)


@every_field
def test_parameters_are_grouped_for_the_optimiser(kind):
  field = fields.FIELDS[kind](SMALL, 1.0)
  assert set(field.init(random.key(0))) <= {"table", "network"}
  assert "network" in field.init(random.key(0))


@every_field
@every_activation
def test_scene_starts_as_a_gray_blob(kind, activation):
  config = configured(activation)
  field = fields.FIELDS[kind](config, 1.0)
  points = jnp.array([[0.0, 0, 0], [0.2, 0, 0], [0.0, 0, -0.4], [0, 0.9, 0]])
  density, albedo = field.query(field.init(random.key(0)), points, 0.0)
  radius = np.array([0.0, 0.2, 0.4, 0.9])
  if activation == "exp":
    expected = np.exp(5 * np.exp(-(radius**2) / (2 * 0.2**2)))
  else:
    expected = np.logaddexp(0, 10 * (1 - radius / 0.5))
  np.testing.assert_allclose(density, expected, rtol=2e-2)
  np.testing.assert_allclose(albedo, 0.5, atol=1e-2)


def directional(function, params, direction):
  """Derivative along a direction by central differences."""
  step = 1e-3
  moved = [
      function(jax.tree.map(
          lambda leaf, along, sign=sign: leaf + sign * step * along,
          params, direction,
      ))
      for sign in (1, -1)
  ]
  return (moved[0] - moved[1]) / (2 * step)


@every_field
@every_activation
def test_gradient_and_gradient_of_slope_match_differences(kind, activation):
  # Without ReLUs: across a kink the slope jumps, which differences see and
  # derivatives do not.
  layers = 0 if kind == "hashgrid" else 2
  field = fields.FIELDS[kind](configured(activation, layers=layers), 1.0)
  params = roughened(field)

  @jax.jit
  def total(params):
    density, albedo = field.query(params, POINTS, 1.0)
    slope = jax.grad(lambda x: jnp.sum(field.query(params, x, 1.0)[0]))(POINTS)
    unit = slope / jnp.linalg.norm(slope, axis=-1, keepdims=True)
    return (
        jnp.mean(jnp.log(density)) + jnp.mean(albedo * jnp.arange(3.0))
        + jnp.mean(unit * jnp.array([1.0, -2.0, 0.5]))
    )

  direction = jax.tree.map(
      lambda leaf: random.normal(random.key(5), leaf.shape), params
  )
  direction = jax.tree.map(
      lambda leaf: leaf / jnp.linalg.norm(leaf), direction
  )
  gradient = jax.jit(jax.grad(total))(params)
  along = sum(
      jnp.vdot(a, b) for a, b in
      zip(jax.tree.leaves(gradient), jax.tree.leaves(direction))
  )
  # Differences of float32 values near 1 over 2e-3 are good to 1e-4.
  np.testing.assert_allclose(
      along, directional(total, params, direction), atol=5e-4, rtol=5e-3
  )


@every_field
@every_activation
def test_slope_is_finite_everywhere(kind, activation):
  field = fields.FIELDS[kind](configured(activation), 1.0)
  params = jax.tree.map(lambda leaf: 30 * leaf, roughened(field))
  points = jnp.concatenate([POINTS, jnp.zeros((1, 3)), jnp.ones((1, 3))])
  density = lambda params, x: jnp.sum(field.query(params, x, 1.0)[0])
  gradient = jax.jit(jax.grad(density, argnums=(0, 1)))(params, points)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_exp_density_has_a_slope_beyond_its_clamp():
  config = configured("exp")
  value, slope = jax.value_and_grad(
      lambda raw: field_lib.density(raw, jnp.ones((1, 3)), config)[0]
  )(jnp.array([40.0]))
  np.testing.assert_allclose(value, np.exp(15) * 26, rtol=1e-5)
  np.testing.assert_allclose(slope[0], np.exp(15), rtol=1e-5)


def test_unknown_activation_is_named():
  for make in fields.FIELDS.values():
    with pytest.raises(ValueError, match="activation is 'relu', want one of"):
      make(dataclasses.replace(SMALL, activation="relu"), 1.0)


def test_masked_levels_have_no_say():
  config = dataclasses.replace(
      SMALL, active_levels=config_lib.Schedule(1.0, 3.0)
  )
  field = hashgrid.make(config, 1.0)
  params = roughened(field)
  table_slope = lambda progress: jax.grad(
      lambda table: jnp.sum(
          field.query({**params, "table": table}, POINTS, progress)[1]
      )
  )(params["table"])
  coarse = 64
  assert (table_slope(0.0)[coarse:] == 0).all()
  assert (table_slope(0.0)[:coarse] != 0).any()
  assert (table_slope(1.0)[coarse:] != 0).any()


def test_level_fades_in_linearly():
  config = dataclasses.replace(
      SMALL, layers=0, active_levels=config_lib.Schedule(1.0, 2.0)
  )
  field = hashgrid.make(config, 1.0)
  params = roughened(field)
  # Without hidden layers the logit of the albedo is linear in the features.
  logit = lambda progress: jax.scipy.special.logit(
      field.query(params, POINTS, progress)[1]
  )
  np.testing.assert_allclose(
      logit(0.25), 0.75 * logit(0.0) + 0.25 * logit(1.0), atol=1e-4
  )


def test_table_covers_the_whole_bounding_cube():
  field = hashgrid.make(SMALL, 2.0)
  params = roughened(field)
  inside = 0.999 * jnp.array([[2.0, 2, 2], [-2.0, -2, -2]])
  moved = inside * jnp.array([[0.98], [0.98]])
  assert (
      field.query(params, inside, 1.0)[1] != field.query(params, moved, 1.0)[1]
  ).any(axis=-1).all()


def test_integrated_encoding_is_the_mean_over_a_gaussian():
  position = np.array([[0.3, -0.2, 0.7]])
  deviation = 0.2
  draws = np.random.default_rng(0).normal(
      position, deviation, (200_000, 3)
  )
  angle = draws[:, None, :] * 2.0 ** np.arange(3)[:, None]
  expected = np.concatenate([np.sin(angle), np.cos(angle)], -1).mean(0)
  encoded = mlp.encode(
      jnp.asarray(position, jnp.float32), jnp.float32(deviation**2), 3
  )
  np.testing.assert_allclose(encoded[0], expected.ravel(), atol=5e-3)


def test_large_variance_blurs_the_mlp_field():
  config = dataclasses.replace(
      SMALL, frequencies=8, ipe_variance=config_lib.Schedule(100.0, 1e-6)
  )
  field = mlp.make(config, 1.0)
  params = roughened(field)
  spread = lambda progress: float(
      jnp.std(field.query(params, POINTS, progress)[1], axis=0).max()
  )
  assert spread(0.0) < 1e-4 < spread(1.0)
