"""What a run changes from step to step."""

import math
from typing import Any, NamedTuple

import jax
from jax import random
import jax.numpy as jnp

from dreamjax import fields
from dreamjax import occupancy as occupancy_lib
from dreamjax import optimizer
from dreamjax.fields import background as background_lib

# Share of the slots that may be missing: the last rows of one view are black.
_TOLERATED = 0.02
# Slots of a raised budget for each that was wanted.
_ROOM = 2.0


class TrainState(NamedTuple):
  """All that changes, of one prompt; on the host with a leading axis P.

  Attributes:
    step: i32[], steps done.
    params: dict of the groups of optimizer.py.
    ema: like params, their running mean: the scene that a user gets.
    opt_state: of the optimiser.
    occupancy: occupancy.Occupancy.
    skipped: i32[], steps that were left out because of a value that was not
      finite.
    demand: f32[], samples that the first step to lack many wanted for each that
      it had; 1 before. Part of the state, so that a run that goes on does so
      with the same slots.
  """

  step: jax.Array
  params: Any
  ema: Any
  opt_state: Any
  occupancy: occupancy_lib.Occupancy
  skipped: jax.Array
  demand: jax.Array


def init(config, key):
  """The state of a prompt before the first step.

  Args:
    config: config.Config.
    key: the run's key for initial values.
  Returns:
    TrainState.
  """
  key_field, key_background = random.split(key)
  field = fields.make(config.field, config.render.bound)
  params = field.init(key_field)
  if background_lib.is_learnt(config.background):
    background = background_lib.make(config.background)
    params = params | {"background": background.init(key_background)}
  return TrainState(
      step=jnp.int32(0),
      params=params,
      ema=params,
      opt_state=optimizer.init(config.optimizer, params),
      occupancy=occupancy_lib.init(config.render),
      skipped=jnp.int32(0),
      demand=jnp.float32(1.0),
  )


def samples_per_ray(config, demand):
  """Slots per ray of the steps to come.

  Raised once, if at all: each number is a program of its own.

  Args:
    config: config.RenderConfig.
    demand: float, the largest of the prompts' TrainState.demand.
  Returns:
    int, at most one for every candidate.
  """
  if demand <= 1:
    return config.samples_per_ray
  raised = math.ceil(_ROOM * demand * config.samples_per_ray)
  return min(raised, config.steps)


def advance(config, state, gradient, grid, is_finite, overflow, progress):
  """TrainState after the gradient, or as it was if that is not finite.

  Args:
    config: config.Config.
    state: TrainState.
    gradient: like its params.
    grid: occupancy.Occupancy of the step.
    is_finite: bool[].
    overflow: f32[], samples that found no slot, as a share of the slots.
    progress: f32[], in [0, 1].
  """
  params, opt_state = optimizer.update(
      config.optimizer, state.params, gradient, state.opt_state, progress
  )
  ema = optimizer.average(config.optimizer, state.ema, params)
  params, ema, opt_state = jax.tree.map(
      lambda new, old: jnp.where(is_finite, new, old),
      (params, ema, opt_state),
      (state.params, state.ema, state.opt_state),
  )
  return TrainState(
      step=state.step + 1,
      params=params,
      ema=ema,
      opt_state=opt_state,
      occupancy=grid,
      skipped=state.skipped + 1 - is_finite.astype(jnp.int32),
      demand=jnp.where(
          (state.demand > 1) | (overflow <= _TOLERATED),
          state.demand,
          1.0 + overflow,
      ),
  )


def checked(state):
  """Names of the arrays that have to be finite, in the order of the road."""
  paths = jax.tree_util.tree_leaves_with_path(state.params)
  return ["image", "latent", "latent's gradient"] + [
      f"gradient of {jax.tree_util.keystr(path)}" for path, _ in paths
  ] + ["gradient's norm"]
