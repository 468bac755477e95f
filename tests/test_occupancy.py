"""The grid keeps what is dense and forgets what is gone."""

import dataclasses

import jax
from jax import random
import jax.numpy as jnp
import numpy as np

from dreamjax import config as config_lib
from dreamjax import fields
from dreamjax import occupancy as occupancy_lib
from dreamjax.ops import march

CONFIG = config_lib.RenderConfig(
    occupancy_resolution=16, occupancy_threshold=0.5, bound=1.0
)


def cell_centres():
  axis = (np.arange(16) + 0.5) / 8 - 1
  return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


def occupied(occupancy):
  """The cells where samples are taken, bool[16, 16, 16]."""
  bits = np.unpackbits(np.asarray(occupancy.bits), axis=-1, bitorder="little")
  return bits.astype(bool)


def test_nothing_is_excluded_at_first():
  occupancy = occupancy_lib.init(CONFIG)
  assert occupancy.bits.shape == (16, 16, 2)
  assert occupied(occupancy).all()


def test_ball_is_occupied_and_its_surroundings_are_not():
  centre = jnp.array([0.25, -0.125, 0.5])
  density = lambda x: 10.0 * (
      jnp.linalg.norm(x - centre, axis=-1) < 0.3
  ).astype(jnp.float32)
  occupancy = occupancy_lib.update(
      random.key(0), density, occupancy_lib.init(CONFIG), CONFIG
  )
  distance = np.linalg.norm(cell_centres() - np.asarray(centre), axis=-1)
  half_diagonal = np.sqrt(3) / 16
  assert occupied(occupancy)[distance < 0.3 - half_diagonal].all()
  assert not occupied(occupancy)[distance > 0.3 + half_diagonal].any()


def test_initial_blob_of_every_field_is_occupied():
  for kind, make in fields.FIELDS.items():
    for activation, scale, width in (
        ("exp", 5.0, 0.2), ("softplus", 10.0, 0.5)
    ):
      config = config_lib.FieldConfig(
          kind=kind, activation=activation, blob_scale=scale, blob_width=width,
          levels=2, log2_table_size=8, base_resolution=4, max_resolution=8,
          width=8, layers=1,
      )
      field = make(config, CONFIG.bound)
      params = field.init(random.key(0))
      occupancy = jax.jit(lambda key, params, occupancy: occupancy_lib.update(
          key, lambda x: field.query(params, x, 0.0)[0], occupancy, CONFIG
      ))(random.key(1), params, occupancy_lib.init(CONFIG))
      radius = np.linalg.norm(cell_centres(), axis=-1)
      assert occupied(occupancy)[radius < width].all()


def test_matter_that_vanished_is_forgotten_after_a_while():
  occupancy = occupancy_lib.Occupancy(
      density=jnp.full((16, 16, 16), 0.0).at[3, 4, 5].set(1.0),
      bits=march.pack(jnp.zeros((16, 16, 16), bool).at[3, 4, 5].set(True)),
  )
  # The mean would be a lower threshold; matter elsewhere keeps it up.
  elsewhere = lambda x: 10.0 * (x[:, 0] > 0).astype(jnp.float32)
  update = jax.jit(lambda key, occupancy: occupancy_lib.update(
      key, elsewhere, occupancy, CONFIG
  ))
  history = []
  for step in range(20):
    occupancy = update(random.key(step), occupancy)
    history.append(int(occupied(occupancy)[3, 4, 5]))
  # 0.95^13 > 0.5 > 0.95^14.
  assert history == [1] * 13 + [0] * 7


def test_faint_scene_is_kept_by_the_mean():
  faint = lambda x: 1e-3 * (x[:, 2] > 0).astype(jnp.float32)
  occupancy = occupancy_lib.update(
      random.key(0), faint, occupancy_lib.init(CONFIG), CONFIG
  )
  np.testing.assert_array_equal(
      occupied(occupancy), cell_centres()[..., 2] > 0
  )


def test_grid_of_odd_resolution_is_evaluated_cell_by_cell():
  config = dataclasses.replace(CONFIG, occupancy_resolution=5)
  occupancy = occupancy_lib.update(
      random.key(0), lambda x: x[:, 1] + 1.0, occupancy_lib.init(config),
      config,
  )
  edges = np.arange(6) / 5 * 2
  density = np.asarray(occupancy.density)
  assert (density >= edges[:-1, None]).all()
  assert (density <= edges[1:, None]).all()
