"""What takes less memory is found, and its price is said."""

import types

import numpy as np
import pytest

from dreamjax import memory
from dreamjax import parallel
from dreamjax import plan
from dreamjax.diffusion import schedule

SCHEDULE = schedule.make(schedule.ScheduleConfig())


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
  return memory.Plan(config, 40, 50, 10, 10, temporary)


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
  assert share(plan._replace(config, "guidance", "residual", "image")) == 0


def test_every_step_of_ddim_is_arithmetic_though_xla_counts_one(tiny):
  config, model = tiny
  one, two, seven = (
      1 / plan.encoder_share(
          plan._replace(config, "guidance", "denoise_steps", steps),
          model, SCHEDULE, parallel.layout(1, 4, 1),
      )
      for steps in (1, 2, 7)
  )
  # Steps in units of an encoding; the denoiser is most of one.
  assert two > 1.3 * one
  np.testing.assert_allclose(seven - one, 6 * (two - one), rtol=0.01)


def test_the_report_names_what_to_say_to_dreamjax(tiny, monkeypatch, capsys):
  config, model = tiny
  monkeypatch.setattr(memory, "measure", lambda config, *_: sized(config))
  monkeypatch.setattr(plan, "encoder_share", lambda *_: 0.254)
  monkeypatch.setattr(memory, "device_memory", lambda: 700)
  where = parallel.layout(1, 4, 1)
  assert not plan.report(config, model, SCHEDULE, where)
  text = capsys.readouterr().out
  assert "Does not fit" in text and "--config" not in text
  assert plan.report(config, model, SCHEDULE, where, 360 / memory.GIB)
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


def test_images_that_feel_are_not_encoded_twice(tiny):
  config = plan._replace(tiny[0], "guidance", "residual", "image")
  grouped = plan._replace(config, "guidance", "views_per_call", 1)
  (line,) = plan.chosen(sized(config), sized(grouped), 0.0)
  assert line == (
      "--config.guidance.views_per_call=1"
      "  (more and smaller calls, no more arithmetic)"
  )


def test_a_process_that_has_planned_more_holds_no_more(
    tiny, monkeypatch, capsys
):
  sizes = iter((40, 300, 600))
  monkeypatch.setattr(
      memory,
      "measure",
      lambda config, *_: sized(config)._replace(process=next(sizes)),
  )
  monkeypatch.setattr(plan, "encoder_share", lambda *_: 0.254)
  where = parallel.layout(1, 4, 1)
  assert plan.report(*tiny, SCHEDULE, where, 510 / memory.GIB)
  assert "views_per_call=2" in capsys.readouterr().out
