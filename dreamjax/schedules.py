"""Values that move with progress: what a `config.Schedule` is worth."""

import jax.numpy as jnp


def value(schedule, progress):
  """The schedule's value.

  Args:
    schedule: config.Schedule.
    progress: f32[...], share of the run that is done, in [0, 1].
  Returns:
    f32[...].
  """
  progress = jnp.asarray(progress, jnp.float32)
  span = schedule.finish - schedule.begin
  if span > 0:
    share = jnp.clip((progress - schedule.begin) / span, 0.0, 1.0)
  else:
    share = (progress >= schedule.finish).astype(jnp.float32)
  if schedule.shape == "exponential":
    return schedule.start * (schedule.end / schedule.start) ** share
  if schedule.shape == "sqrt":
    share = jnp.sqrt(share)
  elif schedule.shape == "cosine":
    share = (1 - jnp.cos(jnp.pi * share)) / 2
  return schedule.start + (schedule.end - schedule.start) * share
