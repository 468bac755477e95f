"""What a step takes is added up."""

import dataclasses
import mmap
import types

import jax
import numpy as np
import pytest

from dreamjax import memory
from dreamjax import parallel
from dreamjax import state as state_lib
from dreamjax.diffusion import schedule

SCHEDULE = schedule.make(schedule.ScheduleConfig())


def nbytes(tree):
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bytes_are_those_of_the_arrays_and_of_the_compiler(
    tiny, dtype, monkeypatch
):
  config, model = tiny
  stats = types.SimpleNamespace(
      argument_size_in_bytes=500_000,
      output_size_in_bytes=60_000,
      alias_size_in_bytes=50_000,
      temp_size_in_bytes=7_000,
  )
  compiled = types.SimpleNamespace(memory_analysis=lambda: stats)
  asked = []

  def lower(steps, where, *shapes):
    asked.append(shapes)
    return types.SimpleNamespace(compile=lambda: compiled)

  monkeypatch.setattr(parallel, "lower", lower)
  where = parallel.layout(2, config.train.views, 1)
  model = dataclasses.replace(model, dtype=dtype)
  monkeypatch.setattr(memory, "resident", {"VmRSS": 4_000_000}.get)
  made = memory.measure(config, model, SCHEDULE, where)
  assert made.weights + made.state + made.temporary == 517_000
  key = jax.random.key(0)
  state = jax.eval_shape(lambda key: state_lib.init(config, key), key)
  assert made.state == 2 * nbytes(state)
  assert made.copy == made.state == made.total - 4_517_000
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert memory.measure(config, model, SCHEDULE, where).total == 517_000
  params = model.distillation_params(jax.eval_shape(model.init, key), False)
  whole = nbytes(params)
  small = nbytes([
      leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(params)
      if leaf.ndim == 1 or path[1].key.startswith("time_")
  ])
  want = {"float32": whole, "bfloat16": small + (whole - small) // 2}
  assert made.weights == want[dtype]
  state_shapes, prompt, shared = asked[0]
  assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, state_shapes)
  assert prompt.views.shape == (4, 4, 16)
  assert all(
      isinstance(leaf, jax.ShapeDtypeStruct)
      for leaf in jax.tree.leaves((state_shapes, prompt, shared))
  )


def test_an_impossible_size_is_refused(tiny):
  config = dataclasses.replace(
      tiny[0], guidance=dataclasses.replace(tiny[0].guidance, image_size=6)
  )
  with pytest.raises(ValueError, match="Image is 6x6"):
    memory.measure(config, tiny[1], SCHEDULE, parallel.layout(1, 4, 1))


def test_a_plan_is_the_sum_of_its_lines():
  plan = memory.Plan(None, *(n * memory.GIB for n in (1, 2, 3, 4, 5)))
  lines = memory.table(plan).splitlines()
  sizes = [float(line.split()[-2]) for line in lines]
  assert sizes == [1.0, 2.0, 3.0, 4.0, 5.0, 15.0]
  assert lines[-1].split()[0] == "total"


def test_the_process_is_in_the_machines_memory():
  before = memory.resident("VmRSS")
  # From the system, not from memory that the process holds free.
  with mmap.mmap(-1, 2**28) as taken:
    np.frombuffer(taken, np.uint8)[:] = 1
    now = memory.resident("VmRSS")
  # Whatever else is given back meanwhile is less than half of it.
  assert now > before + 2**27
  assert before + 2**27 < memory.resident("VmHWM") < memory.device_memory()
