"""Hash grid and a small network (Müller et al. 2022, "Instant-NGP")."""

from flax import linen as nn
from jax import random
import jax
import jax.numpy as jnp

from dreamjax import schedules
from dreamjax import vectors
from dreamjax.fields import field
from dreamjax.ops import hash_grid
from dreamjax.ops import hash_mlp

# Instant-NGP, section 4.
_TABLE_SPREAD = 1e-4


class _Network(nn.Module):
  """The matrices of ReLU layers: features -> (density, red, green, blue).

  One trunk for density and colour takes half the arithmetic of two.
  """

  width: int
  layers: int

  @nn.compact
  def __call__(self, gain):
    """List of f32[C, width], ..., f32[width, 4], features scaled by f32[C]."""
    sizes = [gain.shape[-1]] + [self.width] * self.layers + [4]
    first, *others = (
        self.param(f"kernel_{layer}", nn.initializers.he_normal(), shape)
        for layer, shape in enumerate(zip(sizes[:-1], sizes[1:]))
    )
    # Scaling 32 rows of weights spares a pass over all the features.
    return [gain[:, None] * first, *others]


def _gain(config, progress):
  """f32[L F], 1 for open levels, 0 for masked ones.

  The number of open levels is a schedule; its fraction fades the next level
  in, so that the scene never jumps.
  """
  opened = schedules.value(config.active_levels, progress)
  level = jnp.arange(config.levels, dtype=jnp.float32)
  return jnp.repeat(jnp.clip(opened - level, 0.0, 1.0), config.features)


def _albedo(raw):
  """f32[N, 3] of the network's three outputs f32[N]."""
  return vectors.join(tuple(jax.nn.sigmoid(channel) for channel in raw))


def make(config, bound):
  """A hash grid over the cube [-bound, bound]^3.

  Args:
    config: config.FieldConfig.
    bound: half the side of the cube, units.
  Returns:
    field.Field.
  Raises:
    ValueError: the config does not describe a hash grid.
  """
  field.check(config)
  grid = hash_grid.make_grid(
      config.levels,
      config.features,
      config.log2_table_size,
      config.base_resolution,
      config.max_resolution,
      config.smoothstep,
  )
  network = _Network(config.width, config.layers)

  def init(key):
    key_table, key_network = random.split(key)
    table = random.uniform(
        key_table,
        (grid.num_entries, grid.features),
        minval=-_TABLE_SPREAD,
        maxval=_TABLE_SPREAD,
    )
    gain = jnp.zeros(grid.num_features, jnp.float32)
    variables = network.init(key_network, gain)
    return {"table": table, "network": variables["params"]}

  def run(function, params, position, progress, count):
    weights = network.apply(
        {"params": params["network"]}, _gain(config, progress)
    )
    place = position / (2 * bound) + 0.5
    return function(params["table"], weights, place, grid, count)

  def query(params, position, progress, count=None):
    raw = run(hash_mlp.hash_mlp, params, position, progress, count)
    density, *color = vectors.split(raw)
    return field.density(density, position, config), _albedo(color)

  def query_slope(params, position, progress, count=None):
    raw, slope = run(
        hash_mlp.hash_mlp_slope, params, position, progress, count
    )
    density, *color = vectors.split(raw)
    density, slope = field.density_slope(
        density, slope / (2 * bound), position, config
    )
    return density, _albedo(color), slope

  return field.Field(init, query, query_slope)
