"""How a training step could take less memory, and what that costs."""

import dataclasses
import functools
from typing import Callable, Sequence

import jax

from dreamjax import config as config_lib
from dreamjax import config_io
from dreamjax import memory
from dreamjax import prior

# A chunk of samples below which a GPU idles (config.RenderConfig's default).
_LEAST_CHUNK = 2**14
# A change that saves less of the total than this is not worth its price.
_WORTH = 0.02


def report(config, model, schedule, where, memory_gb=None) -> bool:
  """Prints what a step takes and, for a given memory, how it could take less.

  Args:
    config: config.Config.
    model: diffusion.model.Model.
    schedule: diffusion.schedule.NoiseSchedule.
    where: parallel.Layout.
    memory_gb: GiB on each device; None for what the device has, and then no
      settings are looked for.
  Returns:
    Whether what was found fits.
  """
  first = best = memory.measure(config, model, schedule, where)
  # What it holds after more plans says nothing of a run.
  measure_one = lambda config: memory.measure(
      config, model, schedule, where
  )._replace(process=first.process)
  print(
      "A run, on each device:", memory.table(first), sep="\n", flush=True
  )
  budget = memory.device_memory()
  if memory_gb is not None:
    budget = memory_gb * memory.GIB
    best = choose(first, budget, changes(config, model, where), measure_one)
  if best is not first:
    share = encoder_share(config, model, schedule, where)
    print("With", *chosen(first, best, share), sep="\n  ")
    print("it takes", memory.table(best), sep="\n")
  fits = best.total <= budget
  verdict = "Fits" if fits else "Does not fit"
  print(f"{verdict} into {budget / memory.GIB:.2f} GiB.")
  return fits


def changes(config, model, where) -> list[Callable]:
  """Functions from a config to one that needs less memory, cheapest first.

  Args:
    config: config.Config.
    model: diffusion.model.Model.
    where: parallel.Layout.
  """
  count = where.views_per_device
  slots = config.render.samples_per_ray * count * config.render.resolution**2
  chunk = max(_LEAST_CHUNK, slots // 8)
  known = config.guidance.views_per_call or count + 1
  groups = [n for n in range(count, 0, -1) if count % n == 0 and n < known]
  size = config.guidance.image_size or model.image_size
  sizes = [side for side in (3 * size // 4, size // 2) if _suits(model, side)]
  made = []
  if chunk < min(config.render.samples_per_chunk, slots):
    made.append(functools.partial(
        _replace, group="render", field="samples_per_chunk", value=chunk
    ))
  for field, values in (("views_per_call", groups), ("image_size", sizes)):
    made += [
        functools.partial(
            _replace, group="guidance", field=field, value=value
        )
        for value in values
    ]
  return made


def _suits(model, size):
  try:
    model.latent_shape(size, size)
  except ValueError:
    return False
  return True


def _replace(config, group, field, value):
  part = dataclasses.replace(vars(config)[group], **{field: value})
  return dataclasses.replace(config, **{group: part})


def choose(
    first: memory.Plan,
    budget: float,
    steps: Sequence[Callable],
    measure_one: Callable[[config_lib.Config], memory.Plan],
) -> memory.Plan:
  """The first plan on the way to less memory that fits, else the smallest.

  Args:
    first: where the way begins.
    budget: bytes.
    steps: `changes`; those that save something add up.
    measure_one: config -> memory.Plan.
  """
  best = first
  for change in steps:
    if best.total <= budget:
      break
    plan = measure_one(change(best.config))
    if plan.total < (1 - _WORTH) * best.total:
      best = plan
  return best


def encoder_share(config, model, schedule, where) -> float:
  """Arithmetic of encoding the views again, as a share of a step's.

  Args:
    config: config.Config.
    model: diffusion.model.Model.
    schedule: diffusion.schedule.NoiseSchedule.
    where: parallel.Layout.
  """
  if config.guidance.residual == "image":
    return 0.0  # The encoder has no backward pass that would want it.
  # XLA counts what stands in a loop once.
  config = _replace(config, "guidance", "views_per_call", 0)
  guidance = config.guidance
  _, prompt, shared = memory.shapes(config, model, schedule)
  image, latent = prior.shapes(guidance, model)
  views = where.views_per_device
  calls = guidance.branches * guidance.noise_samples * views

  def flops(function, size, *shapes):
    batch = [jax.ShapeDtypeStruct((size, *shape), "f4") for shape in shapes]
    lowered = jax.jit(function).lower(shared.params, *batch)
    return where.prompts_per_device * lowered.cost_analysis()["flops"]

  encode = flops(
      lambda params, image: prior.encode(guidance, model, params, image),
      views, image,
  )
  denoise = flops(
      lambda params, *batch: prior.denoiser(guidance, model, params)(*batch),
      calls, latent, (), prompt.empty.shape,
  )
  step = memory.lower(config, model, schedule, where).cost_analysis()["flops"]
  return encode / (step + (guidance.denoise_steps - 1) * denoise)


def chosen(first: memory.Plan, best: memory.Plan, share: float) -> list[str]:
  """A line per field that differs: the flag, and what it costs.

  Args:
    first: before the changes.
    best: after them.
    share: `encoder_share`.
  """
  costs = {
      "render.samples_per_chunk": "computes the field of every sample twice",
      "guidance.views_per_call": (
          f"encodes every view twice: about {100 * share:.0f} % more arithmetic"
          if share
          else "more and smaller calls, no more arithmetic"
      ),
      "guidance.image_size": "another result: the prior sees smaller images",
  }
  trees = map(config_io.to_dict, (first.config, best.config))
  return [
      f"--config.{name}={new}  ({costs[name]})"
      for name, _, new in config_io.differences(*trees)
  ]
