"""What is seen behind the object: plain colours and a small network."""

from typing import Any, Callable, NamedTuple

from flax import linen as nn
import jax
from jax import random
import jax.numpy as jnp


class Background(NamedTuple):
  """A surrounding at infinity, learnt with the scene.

  Attributes:
    init: key -> params.
    color: (params, direction f32[..., 3]) -> f32[..., 3], linear RGB.
  """

  init: Callable[[jax.Array], Any]
  color: Callable[[Any, jax.Array], jax.Array]


class _Network(nn.Module):
  """Encoded direction -> RGB in [0, 1]."""

  frequencies: int
  width: int
  layers: int

  @nn.compact
  def __call__(self, direction):
    scale = 2.0 ** jnp.arange(self.frequencies, dtype=jnp.float32)
    angle = direction[..., None, :] * scale[:, None]
    waves = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    hidden = waves.reshape(direction.shape[:-1] + (-1,))
    for _ in range(self.layers):
      hidden = nn.relu(nn.Dense(self.width)(hidden))
    return nn.sigmoid(nn.Dense(3)(hidden))


def is_learnt(config):
  """Whether any view shows the learnt background of this BackgroundConfig."""
  return config.plain_probability < 1.0


def make(config):
  """The learnt background.

  Args:
    config: config.BackgroundConfig.
  Returns:
    Background.
  """
  network = _Network(config.frequencies, config.width, config.layers)

  def init(key):
    return network.init(key, jnp.zeros((1, 3), jnp.float32))["params"]

  def color(params, direction):
    return network.apply({"params": params}, direction)

  return Background(init, color)


def sample(key, config, indices):
  """Random plain colours, and which views show them.

  Args:
    key: the step's key for backgrounds.
    config: config.BackgroundConfig.
    indices: i32[V], global numbers of the views.
  Returns:
    color f32[V, 3], linear RGB in [0, 1]: a gray with a slight tint;
    plain bool[V], whether the view has it instead of the learnt background.
  """

  def sample_one(index):
    number = random.uniform(random.fold_in(key, index), (5,))
    low, high = config.plain_gray
    gray = low + number[0] * (high - low)
    tint = 2 * number[1:4] - 1
    color = jnp.clip(gray + config.plain_tint * tint, 0.0, 1.0)
    return color, number[4] < config.plain_probability

  return jax.vmap(sample_one)(jnp.asarray(indices, jnp.int32))
