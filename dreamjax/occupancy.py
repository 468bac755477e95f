"""Where the scene is not empty: a grid that spares most samples.

The cube [-bound, bound]^3 has G^3 cells, axes x, y, z. Everything stays on the
device; nothing here waits for the host.
"""

import math
from typing import NamedTuple

import jax
from jax import random
import jax.numpy as jnp

from dreamjax.ops import march

# The grid is evaluated in as many parts: each still fills a device, and the
# network's activations take an eighth of the memory.
_PARTS = 8


class Occupancy(NamedTuple):
  """State of the grid.

  Attributes:
    density: f32[G, G, G], decaying maximum of the density seen in each cell.
    bits: u8[G, G, ceil(G / 8)], cells where samples are taken, of march.pack.
  """

  density: jax.Array
  bits: jax.Array


def init(config):
  """A grid that excludes nothing yet.

  Args:
    config: config.RenderConfig.
  Returns:
    Occupancy.
  """
  shape = (config.occupancy_resolution,) * 3
  return Occupancy(
      jnp.zeros(shape, jnp.float32), march.pack(jnp.ones(shape, bool))
  )


def update(key, density, occupancy, config):
  """Looks at one random point of every cell (Instant-NGP, appendix C).

  All cells each time rather than a random part of them: at one update in
  `occupancy_every` steps it is a small part of the work, and no cell is stale.

  Args:
    key: the step's key for the grid.
    density: f32[N, 3] -> f32[N], 1/unit, of the scene as it is now.
    occupancy: Occupancy.
    config: config.RenderConfig.
  Returns:
    Occupancy: the running maximum, and the cells that exceed min(threshold,
    mean over the grid).
  """
  resolution = config.occupancy_resolution
  count = resolution**3
  corner = jnp.stack(
      jnp.unravel_index(jnp.arange(count), (resolution,) * 3), axis=-1
  )
  place = corner.astype(jnp.float32) + random.uniform(key, corner.shape)
  position = config.bound * (2 * place / resolution - 1)
  parts = math.gcd(resolution, _PARTS)
  seen = jax.lax.map(density, position.reshape(parts, -1, 3))
  running = jnp.maximum(
      config.occupancy_decay * occupancy.density,
      seen.reshape(occupancy.density.shape),
  )
  threshold = jnp.minimum(config.occupancy_threshold, jnp.mean(running))
  return Occupancy(running, march.pack(running > threshold))
