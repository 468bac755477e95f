"""What a step takes is added up, and what takes less is found."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from dreamjax import parallel
from dreamjax import plan
from dreamjax import state as state_lib
from dreamjax.diffusion import schedule

SCHEDULE = schedule.make(schedule.ScheduleConfig())


def nbytes(tree):
  return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))


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
  made = plan.measure(config, model, SCHEDULE, where)
  assert made.weights + made.state + made.temporary == 517_000
  state = state_lib.init(config, jax.random.key(0))
  assert made.state == 2 * nbytes(state)
  assert made.copy == made.state == made.total - 517_000
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert plan.measure(config, model, SCHEDULE, where).total == 517_000
  params = model.distillation_params(model.init(jax.random.key(0)), False)
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
  config = plan._replace(tiny[0], "guidance", "image_size", 6)
  with pytest.raises(ValueError, match="Image is 6x6"):
    plan.measure(config, tiny[1], SCHEDULE, parallel.layout(1, 4, 1))


def described(config):
  guidance = config.guidance
  return (
      config.render.samples_per_chunk,
      guidance.views_per_call,
      guidance.image_size,
  )


def test_what_costs_least_is_tried_first(tiny):
  config, model = tiny
  config = plan._replace(config, "render", "resolution", 64)
  config = plan._replace(config, "render", "samples_per_chunk", 2**30)
  steps = plan.changes(config, model, parallel.layout(1, 4, 1))
  assert [described(step(config)) for step in steps] == [
      (16384, 0, 0), (2**30, 4, 0), (2**30, 2, 0), (2**30, 1, 0),
      (2**30, 0, 12), (2**30, 0, 8),
  ]
  config = steps[2](steps[0](config))  # There is no way back.
  steps = plan.changes(config, model, parallel.layout(1, 4, 1))
  assert [described(step(config))[1:] for step in steps] == [
      (1, 0), (2, 12), (2, 8)
  ]


def sized(config):
  """A Plan whose temporaries depend on two fields."""
  views, size = config.guidance.views_per_call, config.guidance.image_size
  temporary = {0: 600, 4: 595, 2: 400, 1: 300}[views] - (50 if size else 0)
  return plan.Plan(config, 90, 10, 10, temporary)


@pytest.mark.parametrize(
    "budget, views, size, total",
    [
        (800, 0, 0, 710),
        (705, 2, 0, 510),  # 4 views save less than they cost.
        (410, 1, 0, 410),
        (409, 1, 12, 360),
        (100, 1, 12, 360),  # Nothing fits: the smallest.
    ],
)
def test_the_first_plan_that_fits_is_chosen(tiny, budget, views, size, total):
  config, model = tiny
  best = plan.choose(
      sized(config),
      budget,
      plan.changes(config, model, parallel.layout(1, 4, 1)),
      sized,
  )
  assert described(best.config)[1:] == (views, size)
  assert best.total == total


def test_encoding_again_costs_what_encoding_costs(tiny):
  config, model = tiny
  share = lambda config: plan.encoder_share(
      config, model, SCHEDULE, parallel.layout(1, 4, 1)
  )
  assert 0.05 < share(config) < 0.5
  grouped = plan._replace(config, "guidance", "views_per_call", 1)
  assert share(grouped) == share(config)


def test_the_report_names_what_to_say_to_dreamjax(tiny, monkeypatch, capsys):
  config, model = tiny
  monkeypatch.setattr(plan, "measure", lambda config, *_: sized(config))
  monkeypatch.setattr(plan, "encoder_share", lambda *_: 0.254)
  monkeypatch.setattr(plan, "device_memory", lambda: 700)
  where = parallel.layout(1, 4, 1)
  assert not plan.report(config, model, SCHEDULE, where)
  text = capsys.readouterr().out
  assert "Does not fit" in text and "--config" not in text
  assert plan.report(config, model, SCHEDULE, where, 360 / plan.GIB)
  lines = capsys.readouterr().out.splitlines()
  assert (
      "  --config.guidance.views_per_call=1"
      "  (encodes every view twice: about 25 % more arithmetic)" in lines
  )
  assert (
      "  --config.guidance.image_size=12"
      "  (another result: the prior sees smaller images)" in lines
  )
  assert lines[-1].startswith("Fits into")
