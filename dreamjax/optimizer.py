"""Adam with a learning rate per group of parameters.

Parameters are a dict whose top-level names are the groups: "network" and,
where the scene has them, "table" and "background".
"""

import math

import jax
import optax

from dreamjax import config as config_lib
from dreamjax import schedules


def _transform(config):
  """The direction of the step; its length is ours."""
  adam = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
  if math.isinf(config.clip):
    return adam
  return optax.chain(optax.clip_by_global_norm(config.clip), adam)


def init(config, params):
  """State before the first step.

  Args:
    config: config.OptimizerConfig.
    params: dict of groups.
  Returns:
    Pytree of arrays.
  """
  return _transform(config).init(params)


def rates(config, progress):
  """Learning rate of each group: a linear warm-up, then a cosine.

  Args:
    config: config.OptimizerConfig.
    progress: f32[], in [0, 1].
  Returns:
    Dict of f32[] by the group's name.
  """
  warmup = config_lib.Schedule(0.0, 1.0, 0.0, config.warmup)
  decay = config_lib.Schedule(1.0, config.decay, config.warmup, 1.0, "cosine")
  factor = schedules.value(warmup, progress) * schedules.value(decay, progress)
  return {
      "table": factor * config.table,
      "network": factor * config.network,
      "background": factor * config.background,
  }


def update(config, params, gradient, state, progress):
  """One step of Adam, on the gradient clipped to a global norm.

  Args:
    config: config.OptimizerConfig.
    params: dict of groups.
    gradient: like params.
    state: of `init`.
    progress: f32[], in [0, 1].
  Returns:
    (params, state) after the step.
  """
  with jax.numpy_dtype_promotion("standard"):  # Optax mixes dtypes.
    direction, state = _transform(config).update(gradient, state)
  rate = rates(config, progress)
  params = {
      name: jax.tree.map(
          lambda value, way, name=name: value - rate[name] * way,
          group,
          direction[name],
      )
      for name, group in params.items()
  }
  return params, state


def average(config, mean, params):
  """The running mean of the parameters, one step on.

  Args:
    config: config.OptimizerConfig.
    mean: like params.
    params: dict of groups.
  Returns:
    Like params.
  """
  return jax.tree.map(
      lambda old, new: config.ema * old + (1 - config.ema) * new, mean, params
  )
