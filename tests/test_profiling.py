"""The parts of a step are all there, and add up."""

import dataclasses
import itertools
import time

import jax
import pytest

from dreamjax import profiling
from dreamjax import roofline
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import schedule


def measure(tiny, folder=None, **guidance):
  """Rows by name, by a clock that ticks when asked.

  Args:
    tiny: (config, model).
    folder: of the trace.
    **guidance: fields of the config to replace.
  """
  config, model = tiny
  config = dataclasses.replace(
      config, guidance=dataclasses.replace(config.guidance, **guidance)
  )
  pipeline = model_lib.StableDiffusion(
      model,
      jax.jit(model.init)(jax.random.key(0)),
      schedule.make(schedule.ScheduleConfig()),
      None,
  )
  clock = itertools.count()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(roofline, "REPEATS", 2)
    patch.setattr(time, "perf_counter", lambda: float(next(clock)))
    rows = profiling.measure(config, pipeline, folder)
  return {row.name: row for row in rows}


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
  """(rows by name, folder of the trace)."""
  folder = tmp_path_factory.mktemp("trace")
  return measure(tiny, folder), folder


def test_parts_rest_and_whole_are_per_step(measured):
  rows, _ = measured
  assert list(rows) == [
      "render, forward", "encoder, forward", "encoder, backward", "UNet",
      "render, backward", "optimiser", "occupancy, 1 in 2", "between them",
      "whole step",
  ]
  milliseconds = {name: row.milliseconds for name, row in rows.items()}
  # A call lasts a second; one of the program is two steps.
  assert milliseconds.pop("whole step") == 500
  assert milliseconds.pop("between them") == 500 - 6500
  assert milliseconds.pop("occupancy, 1 in 2") == 500
  assert set(milliseconds.values()) == {1000}


def test_what_is_called_several_times_counts_so(tiny, measured):
  rows = measure(tiny, residual="image", denoise_steps=3)
  assert list(rows)[:5] == [
      "render, forward", "encoder", "decoder", "UNet, 3 times",
      "render, backward",
  ]
  assert rows["UNet, 3 times"].milliseconds == 3000
  once = measured[0]["UNet"]
  assert rows["UNet, 3 times"].flops == pytest.approx(3 * once.flops)
  assert rows["encoder"].flops < measured[0]["encoder, forward"].flops * 1.1


def test_arithmetic_is_that_of_the_parts(measured):
  rows, _ = measured
  flops = {name: row.flops for name, row in rows.items()}
  # A weight's gradient would cost as much again.
  assert 0.8 < flops["encoder, backward"] / flops["encoder, forward"] < 1.5
  assert all(
      row.flops > 0 and row.moved > 0
      for name, row in rows.items()
      if name != "between them"
  )


def test_a_trace_is_written(measured):
  assert list(measured[1].rglob("*.xplane.pb"))


def test_the_report_has_shares_and_peaks(monkeypatch, tiny):
  rows = [
      profiling.Row("part", 5.0, 1e9, 1e6), profiling.Row("all", 20.0, 2e9, 0.0)
  ]
  monkeypatch.setattr(profiling, "measure", lambda *_: rows)
  monkeypatch.setattr(
      roofline, "measure", lambda dtype: roofline.Peak(1e12, 1e10)
  )
  pipeline = model_lib.StableDiffusion(tiny[1], None, None, None)
  lines = profiling.report(tiny[0], pipeline).splitlines()
  assert lines[1].split() == ["part", "5.00", "25.0", "1.000", "0.001", "1.000"]
  assert lines[-1] == "Peak: 1.000 TFLOP/s in float32, 10.0 GB/s."
