"""The loop that both networks of the prior are trained in."""

import functools
from typing import Any, Callable, NamedTuple

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from dreamjax import checkpoint
from dreamjax import progress

WARMUP = 100
_LAST_RATE = 0.02
# Steps between two looks at the numbers.
_SAY_EVERY = 50


class Update(NamedTuple):
  """How one network learns.

  Attributes:
    loss: (params, data, key) -> f32[].
    optimizer: of the parameters.
    ema: decay of the running mean of the parameters.
  """

  loss: Callable[..., jax.Array]
  optimizer: optax.GradientTransformation
  ema: float


class State(NamedTuple):
  """What changes.

  Attributes:
    params: as trained.
    mean: their running mean, which is kept.
    optimizer: the optimiser's state.
  """

  params: Any
  mean: Any
  optimizer: Any


def rate(peak: float, steps: int) -> optax.Schedule:
  """Learning rate: a short warm-up, then half a cosine."""
  return optax.warmup_cosine_decay_schedule(
      0.0, peak, min(WARMUP, steps // 2), steps, peak * _LAST_RATE
  )


def init(update: Update, params: Any) -> State:
  """The state before the first step."""
  return State(
      params, jax.tree.map(jnp.copy, params), update.optimizer.init(params)
  )


def run(
    update: Update,
    state: State,
    data: Any,
    *,
    store: checkpoint.Store,
    log: str,
    steps: int,
    seed: int,
    save_every: int,
    on_save: Callable[[int, Any], None],
) -> Any:
  """Trains, from the newest checkpoint on.

  Args:
    update: how.
    state: before the first step.
    data: pytree of arrays that `update.loss` reads; an argument of the step.
    store: checkpoints.
    log: path of the file of numbers.
    steps: of the whole training.
    seed: of all random numbers; step n's come from fold_in(key(seed), n).
    save_every: steps between two checkpoints.
    on_save: (steps done, running mean of the parameters) -> None, called
      after each checkpoint.
  Returns:
    The running mean of the parameters.
  Raises:
    FloatingPointError: the loss is not finite.
  """

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, data, key, number):
    value, gradient = jax.value_and_grad(update.loss)(state.params, data, key)
    with jax.numpy_dtype_promotion("standard"):  # Optax mixes dtypes.
      change, optimizer = update.optimizer.update(
          gradient, state.optimizer, state.params
      )
    params = optax.apply_updates(state.params, change)
    # Early on the mean is short: the first parameters are no good.
    decay = jnp.minimum(update.ema, (1.0 + number) / (10.0 + number))
    mean = jax.tree.map(
        lambda old, new: decay * old + (1 - decay) * new, state.mean, params
    )
    return State(params, mean, optimizer), value

  found = store.restore(jax.tree.map(np.asarray, state))
  start = 0
  if found:
    start, state = found
  bar = progress.Progress(steps, start)
  numbers = progress.MetricsLog(log, start)
  key = random.key(seed)
  losses = []
  for number in range(start, steps):
    state, value = step(
        state, data, random.fold_in(key, number), np.float32(number)
    )
    losses.append(value)
    done = number + 1
    if done % _SAY_EVERY == 0 or done == steps:
      mean = float(np.mean(jax.device_get(losses)))
      losses = []
      if not np.isfinite(mean):
        raise FloatingPointError(f"the loss is not finite at step {done}.")
      bar.update(done, {"loss": mean})
      numbers.write(done, {"loss": mean})
    if done % save_every == 0 or done == steps:
      store.save(done, jax.device_get(state))
      on_save(done, state.mean)
  bar.close()
  numbers.close()
  return state.mean
