"""Where the time of a training step goes, and what the device could do.

The parts of a step are compiled and timed one by one, on the shapes of a run.
"""

import contextlib
import functools
import statistics
import time
from typing import NamedTuple

import jax
from jax import random
import jax.numpy as jnp
import numpy as np

from dreamjax import fields
from dreamjax import parallel
from dreamjax import prior
from dreamjax import roofline
from dreamjax import state as state_lib
from dreamjax import step as step_lib
from dreamjax import views

_COLUMNS = ("part", "ms", "share %", "GFLOP", "GB", "floor ms")


class Row(NamedTuple):
  """What was found out about a part, per step.

  Attributes:
    name: of the part.
    milliseconds: median.
    flops: of arithmetic, as XLA counts: loops count once, our own kernels not
      at all.
    moved: bytes read and written, counted likewise.
  """

  name: str
  milliseconds: float
  flops: float
  moved: float


def report(config, pipeline, trace=None) -> str:
  """A table of the parts of a step of one prompt on one device.

  Args:
    config: config.Config.
    pipeline: diffusion.model.StableDiffusion.
    trace: folder that a trace of some steps goes to, or None.
  """
  rows = measure(config, pipeline, trace)
  peak = roofline.measure(pipeline.model.dtype)
  cells = [_COLUMNS] + [
      (
          row.name,
          f"{row.milliseconds:.2f}",
          f"{100 * row.milliseconds / rows[-1].milliseconds:.1f}",
          f"{row.flops / 1e9:.3f}",
          f"{row.moved / 1e9:.3f}",
          f"{roofline.floor(row.flops, row.moved, peak):.3f}",
      )
      for row in rows
  ]
  lines = ["{:<24}{:>10}{:>9}{:>11}{:>9}{:>10}".format(*row) for row in cells]
  lines.append(
      f"Peak: {peak.flops / 1e12:.3f} TFLOP/s in {pipeline.model.dtype.name},"
      f" {peak.moved / 1e9:.1f} GB/s."
  )
  return "\n".join(lines)


def measure(config, pipeline, trace=None) -> list[Row]:
  """Rows of the parts, of what lies between them, and of the whole step.

  Args:
    config: config.Config.
    pipeline: diffusion.model.StableDiffusion.
    trace: folder that a trace of some steps goes to, or None.
  Raises:
    ValueError: config.guidance.image_size does not suit the model.
  """
  model = pipeline.model
  prior.shapes(config.guidance, model)
  where = parallel.layout(1, config.train.views, 1)
  every = config.render.occupancy_every
  first = config.train.steps // 2 // every * every
  count = min(every, config.train.steps_per_dispatch)
  phase = views.phases(config)[first]
  _, prompt, shared = step_lib.shapes(
      config, model, pipeline.params, pipeline.schedule
  )
  prompt = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), prompt)
  shared = shared._replace(
      params=prior.needed(config.guidance, model, pipeline.params),
      schedule=pipeline.schedule,
      key=random.key_data(random.key(0)),
      first=jnp.int32(first),
      count=jnp.int32(count),
  )
  state = jax.jit(state_lib.init, static_argnums=0)(config, random.key(0))
  whole, state = _whole(
      step_lib.make_steps(config, model, where, phase),
      where, state, prompt, shared, count, trace,
  )
  progress = jnp.float32(first / config.train.steps)
  rows = _parts(
      config, model, shared.params, state, prompt, progress,
      phase.with_normals, count,
  )
  took = sum(row.milliseconds for row in rows)
  rest = Row("between them", whole.milliseconds - took, 0.0, 0.0)
  return [*rows, rest, whole]


def _whole(steps, where, state, prompt, shared, count, trace):
  """(Row of a step among so many in a call, the state after some of them)."""
  compiled = parallel.lower(steps, where, state, prompt, shared).compile()
  states, prompts = parallel.shard(
      jax.tree.map(lambda leaf: np.asarray(leaf)[None], (state, prompt)), where
  )
  indices = parallel.indices(where)
  shared = parallel.replicate(shared, where)
  times = []
  for i in range(1 + roofline.REPEATS):
    is_traced = trace is not None and i == roofline.REPEATS
    with jax.profiler.trace(trace) if is_traced else contextlib.nullcontext():
      began = time.perf_counter()
      states, _ = jax.block_until_ready(
          compiled(states, prompts, indices, shared)
      )
      times.append(time.perf_counter() - began)
  # The first call warms up; a trace slows the last.
  times = times[1:roofline.REPEATS]
  row = _row("whole step", compiled, 1e3 * statistics.median(times) / count)
  state = jax.tree.map(lambda leaf: leaf[0], parallel.unshard(states, where))
  return row, jax.tree.map(jnp.asarray, state)


def _parts(
    config, model, params, state, prompt, progress, with_normals, count
):
  """Rows; each part gets what the parts before it made of the state."""
  indices = jnp.arange(config.train.views, dtype=jnp.int32)
  key = random.key(0)
  drawn = views.draw(key, config, indices, progress)
  noises = config.guidance.noise_samples
  rows = []

  def timed(name, function, *arguments, calls=1):
    compiled = jax.jit(function).lower(*arguments).compile()
    result = jax.block_until_ready(compiled(*arguments))
    took = statistics.median(roofline.times(compiled, arguments))
    rows.append(_row(name, compiled, 1e3 * took * calls, calls))
    return result

  def render(scene, drawn, bits, progress):
    field = fields.make(config.field, config.render.bound)

    def look(scene):
      images, penalty, _ = views.look(
          config, field, scene, drawn, bits, progress, with_normals
      )
      return prior.resize(config.guidance, model, images.color), penalty

    return jax.vjp(look, scene)

  def encode(params, image):
    return prior.encode(config.guidance, model, params, image)

  def decode(params, latent):
    return prior.decode(config.guidance, model, params, latent)

  def denoise(params, *batch):
    return prior.denoiser(config.guidance, model, params)(*batch)

  def advance(state, gradient, progress):
    return state_lib.advance(
        config, state, gradient, state.occupancy, jnp.bool_(True),
        jnp.float32(0.0), progress,
    )

  def look_around(key, scene, grid, progress):
    return step_lib.look_around(key, config, scene, grid, progress)

  pull_back = lambda pull, cotangent: pull(cotangent)
  (image, penalty), pull_scene = timed(
      "render, forward", render, state.params, drawn, state.occupancy.bits,
      progress,
  )
  if config.guidance.residual == "image":
    latent = timed("encoder", encode, params, image)
    slope = timed("decoder", decode, params, latent)
  else:
    latent, pull_image = timed(
        "encoder, forward",
        lambda params, image: jax.vjp(functools.partial(encode, params), image),
        params, image,
    )
    (slope,) = timed("encoder, backward", pull_back, pull_image, latent)
  noisy = jnp.concatenate([latent] * (config.guidance.branches * noises))
  text = jnp.broadcast_to(prompt.empty, (len(noisy), *prompt.empty.shape))
  t = jnp.full(len(noisy), 500, jnp.int32)
  steps = config.guidance.denoise_steps
  timed(
      "UNet" if steps == 1 else f"UNet, {steps} times", denoise, params, noisy,
      t, text, calls=steps,
  )
  (gradient,) = timed(
      "render, backward", pull_back, pull_scene, (slope, penalty)
  )
  timed("optimiser", advance, state, gradient, progress)
  timed(
      f"occupancy, 1 in {count}", look_around, key, state.params,
      state.occupancy, progress, calls=1 / count,
  )
  return rows


def _row(name, compiled, milliseconds, calls=1):
  cost = compiled.cost_analysis()
  return Row(
      name,
      milliseconds,
      cost.get("flops", 0.0) * calls,
      cost.get("bytes accessed", 0.0) * calls,
  )
