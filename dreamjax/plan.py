"""What memory a training step takes on a device, and how it could take less.

Nothing is computed: XLA compiles the step for shapes, and says what it would
allocate.
"""

import dataclasses
import functools
import os
from typing import Callable, NamedTuple, Sequence

import jax

from dreamjax import config as config_lib
from dreamjax import config_io
from dreamjax import parallel
from dreamjax import prior
from dreamjax import step as step_lib
from dreamjax import views
from dreamjax.diffusion import weights

GIB = 2**30
# A chunk of samples below which a GPU idles (config.RenderConfig's default).
_LEAST_CHUNK = 2**14
# A change that saves less of the total than this is not worth its price.
_WORTH = 0.02


class Plan(NamedTuple):
  """A config and the bytes that its step takes on each device.

  Attributes:
    config: config.Config.
    weights: what encoder and denoiser read.
    state: parameters, their mean, the optimiser's moments, the occupancy.
    copy: the host's copy of the state, for checkpoints; 0 where the host has
      memory of its own.
    temporary: all else, at the worst moment of a step.
  """

  config: config_lib.Config
  weights: int
  state: int
  copy: int
  temporary: int

  @property
  def total(self) -> int:
    return self.weights + self.state + self.copy + self.temporary


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
  measure_one = lambda config: measure(config, model, schedule, where)
  first = best = measure_one(config)
  print("A training step, on each device:", table(first), sep="\n", flush=True)
  budget = device_memory()
  if memory_gb is not None:
    budget = memory_gb * GIB
    best = choose(first, budget, changes(config, model, where), measure_one)
  if best is not first:
    share = encoder_share(config, model, schedule, where)
    print("With", *chosen(first, best, share), sep="\n  ")
    print("it takes", table(best), sep="\n")
  fits = best.total <= budget
  print(f"{'Fits' if fits else 'Does not fit'} into {budget / GIB:.2f} GiB.")
  return fits


def measure(config, model, schedule, where) -> Plan:
  """Compiles the step of a config, the one with normals if it has any.

  Args:
    config: config.Config.
    model: diffusion.model.Model.
    schedule: diffusion.schedule.NoiseSchedule.
    where: parallel.Layout.
  Raises:
    ValueError: config.guidance.image_size does not suit the model.
  """
  state, prompt, shared = _shapes(config, model, schedule)
  stats = _lower(config, model, schedule, where).compile().memory_analysis()
  held = _bytes(shared.params)
  changing = where.prompts_per_device * _bytes(state)
  # Donated arguments are results too.
  everything = (
      stats.argument_size_in_bytes
      + stats.output_size_in_bytes
      - stats.alias_size_in_bytes
      + stats.temp_size_in_bytes
  )
  copy = changing if jax.default_backend() == "cpu" else 0
  return Plan(config, held, changing, copy, everything - held - changing)


def _shapes(config, model, schedule):
  return step_lib.shapes(config, model, weights.shapes(model), schedule)


def _lower(config, model, schedule, where):
  size = config.guidance.image_size or model.image_size
  model.latent_shape(size, size)
  steps = step_lib.make_steps(
      config, model, where, bool(views.need_normals(config).any())
  )
  return parallel.lower(steps, where, *_shapes(config, model, schedule))


def _bytes(tree):
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


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
    first: Plan,
    budget: float,
    steps: Sequence[Callable],
    measure_one: Callable[[config_lib.Config], Plan],
) -> Plan:
  """The first plan on the way to less memory that fits, else the smallest.

  Args:
    first: where the way begins.
    budget: bytes.
    steps: `changes`; those that save something add up.
    measure_one: config -> Plan.
  """
  best = first
  for change in steps:
    if best.total <= budget:
      break
    plan = measure_one(change(best.config))
    if plan.total < (1 - _WORTH) * best.total:
      best = plan
  return best


def device_memory() -> int:
  """Bytes of a device; of the machine, if the device is its processor."""
  stats = jax.local_devices()[0].memory_stats()
  if stats:
    return stats["bytes_limit"]
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def encoder_share(config, model, schedule, where) -> float:
  """Arithmetic of one encoding of the views, as a share of a step's.

  Args:
    config: config.Config.
    model: diffusion.model.Model.
    schedule: diffusion.schedule.NoiseSchedule.
    where: parallel.Layout.
  """
  # XLA counts what stands in a loop once.
  config = _replace(config, "guidance", "views_per_call", 0)

  def flops(denoise_steps):
    changed = _replace(config, "guidance", "denoise_steps", denoise_steps)
    return _lower(changed, model, schedule, where).cost_analysis()["flops"]

  one, steps = flops(1), config.guidance.denoise_steps
  step = one + (steps - 1) * (flops(2) - one)
  size = config.guidance.image_size or model.image_size
  image = jax.ShapeDtypeStruct((where.views_per_device, size, size, 3), "f4")
  shared = _shapes(config, model, schedule)[2]
  encode = jax.jit(prior.encode, static_argnums=(0, 1)).lower(
      config.guidance, model, shared.params, image
  )
  return encode.cost_analysis()["flops"] / (step * where.prompts_per_device)


def table(plan: Plan) -> str:
  """Lines of GiB."""
  rows = (
      ("weights of the prior", plan.weights),
      ("scene and optimiser", plan.state),
      ("its copy on the host", plan.copy),
      ("temporary, at most", plan.temporary),
      ("total", plan.total),
  )
  return "\n".join(
      f"  {name:<22}{size / GIB:>9.3f} GiB" for name, size in rows
  )


def chosen(first: Plan, best: Plan, share: float) -> list[str]:
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
      ),
      "guidance.image_size": "another result: the prior sees smaller images",
  }
  trees = map(config_io.to_dict, (first.config, best.config))
  return [
      f"--config.{name}={new}  ({costs[name]})"
      for name, _, new in config_io.differences(*trees)
  ]
