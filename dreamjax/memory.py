"""What memory a training step takes on a device.

Nothing is computed: XLA compiles the step for shapes, and says what it would
allocate.
"""

import os
import pathlib
from typing import NamedTuple

import jax

from dreamjax import config as config_lib
from dreamjax import parallel
from dreamjax import prior
from dreamjax import step as step_lib
from dreamjax import views
from dreamjax.diffusion import weights

GIB = 2**30


class Plan(NamedTuple):
  """A config and the bytes that its step takes on each device.

  Attributes:
    config: config.Config.
    process: what the process holds already, Python and what compiling left; 0
      where the device has memory of its own.
    weights: what encoder and denoiser read.
    state: parameters, their mean, the optimiser's moments, the occupancy.
    copy: the host's copy of the state, for checkpoints; 0 where the host has
      memory of its own.
    temporary: all else, at the worst moment of a step.
  """

  config: config_lib.Config
  process: int
  weights: int
  state: int
  copy: int
  temporary: int

  @property
  def total(self) -> int:
    """All of it, bytes."""
    return sum(self[1:])


def measure(config, model, schedule, where) -> Plan:
  """Compiles the step of a config, of its phases the one that takes most.

  Args:
    config: config.Config.
    model: diffusion.model.Model.
    schedule: diffusion.schedule.NoiseSchedule.
    where: parallel.Layout.
  Raises:
    ValueError: config.guidance.image_size does not suit the model.
  """
  state, _, shared = shapes(config, model, schedule)
  stats = lower(config, model, schedule, where).compile().memory_analysis()
  held = _bytes(shared.params)
  changing = where.prompts_per_device * _bytes(state)
  # Donated arguments are results too.
  everything = (
      stats.argument_size_in_bytes
      + stats.output_size_in_bytes
      - stats.alias_size_in_bytes
      + stats.temp_size_in_bytes
  )
  rest = everything - held - changing
  if jax.default_backend() == "cpu":
    return Plan(config, resident("VmRSS"), held, changing, changing, rest)
  return Plan(config, 0, held, changing, 0, rest)


def shapes(config, model, schedule):
  """`step.shapes` where no weights have been read."""
  return step_lib.shapes(config, model, weights.shapes(model), schedule)


def lower(config, model, schedule, where) -> jax.stages.Lowered:
  """The step that `measure` compiles; arguments and errors are the same."""
  prior.shapes(config.guidance, model)
  # Normals take memory, and so does an encoder.
  phase = max(
      views.phases(config),
      key=lambda phase: (not phase.as_latents, phase.with_normals),
  )
  steps = step_lib.make_steps(config, model, where, phase)
  return parallel.lower(steps, where, *shapes(config, model, schedule))


def _bytes(tree):
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def device_memory() -> int:
  """Bytes of a device; of the machine, if the device is its processor."""
  stats = jax.local_devices()[0].memory_stats()
  if stats:
    return stats["bytes_limit"]
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def resident(name: str) -> int:
  """Bytes of this process in the machine's memory.

  Args:
    name: "VmRSS" for now, "VmHWM" for the most so far.
  """
  lines = pathlib.Path("/proc/self/status").read_text().splitlines()
  (line,) = [line for line in lines if line.startswith(f"{name}:")]
  return 1024 * int(line.split()[1])


def table(plan: Plan) -> str:
  """Lines of GiB."""
  rows = (
      ("the process itself", plan.process),
      ("weights of the prior", plan.weights),
      ("scene and optimiser", plan.state),
      ("its copy on the host", plan.copy),
      ("temporary, at most", plan.temporary),
      ("total", plan.total),
  )
  return "\n".join(
      f"  {name:<22}{size / GIB:>9.3f} GiB" for name, size in rows
  )
