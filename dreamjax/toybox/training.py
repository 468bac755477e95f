"""The loop that both networks of the prior are trained in."""

from typing import Any, Callable, NamedTuple

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax

from dreamjax import checkpoint
from dreamjax import parallel
from dreamjax import progress

WARMUP = 100
_LAST_RATE = 0.02
# Steps between two looks at the numbers.
_SAY_EVERY = 50


class Update(NamedTuple):
  """How one network learns.

  Attributes:
    loss: (params, data, key, rows i32[B / D]) -> f32[], the mean over these
      rows of the batch that `data` and `key` give.
    batch: B.
    optimizer: of the parameters.
    ema: decay of the running mean of the parameters.
  """

  loss: Callable[..., jax.Array]
  batch: int
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
    devices: int = 0,
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
    devices: that share a batch; 0 takes as many as divide it.
  Returns:
    The running mean of the parameters, on the host.
  Raises:
    FloatingPointError: the loss is not finite.
  """
  where = parallel.layout(1, update.batch, devices)

  def step(state, prompt, rows, shared):
    del prompt  # There is none.
    data, key, number = shared
    value, gradient = parallel.mean_over_group(
        jax.value_and_grad(update.loss)(
            state.params, data, random.wrap_key_data(key), rows
        ),
        where,
    )
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

  mapped = parallel.over_devices(step, where)
  start, state = store.restore(jax.tree.map(np.asarray, state)) or (0, state)
  state = jax.tree.map(lambda x: np.asarray(x)[None], state)
  state = parallel.shard(state, where)
  data = parallel.replicate(data, where)
  here = lambda tree: jax.tree.map(
      lambda x: x[0, ...], parallel.unshard(tree, where)
  )
  bar = progress.Progress(steps, start)
  numbers = progress.MetricsLog(log, start)
  key = random.key(seed)
  losses = []
  for number in range(start, steps):
    shared = (
        data, random.key_data(random.fold_in(key, number)), np.float32(number)
    )
    state, value = mapped(state, (), shared)
    losses.append(value)
    done = number + 1
    if done % _SAY_EVERY == 0 or done == steps:
      mean = float(np.mean(here(losses)))
      losses = []
      if not np.isfinite(mean):
        raise FloatingPointError(f"the loss is not finite at step {done}.")
      bar.update(done, {"loss": mean})
      numbers.write(done, {"loss": mean})
    if done % save_every == 0 or done == steps:
      kept = here(state)
      store.save(done, kept)
      on_save(done, kept.mean)
  bar.close()
  numbers.close()
  return here(state.mean)
