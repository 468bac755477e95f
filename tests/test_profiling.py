"""The parts of a step are all there, and add up."""

import itertools

import jax
import pytest

from dreamjax import profiling
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import schedule


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
  """(rows by name, folder of the trace), by a clock that ticks when asked."""
  config, model = tiny
  pipeline = model_lib.StableDiffusion(
      model,
      model.init(jax.random.key(0)),
      schedule.make(schedule.ScheduleConfig()),
      None,
  )
  folder = tmp_path_factory.mktemp("trace")
  clock = itertools.count()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(profiling, "_REPEATS", 2)
    patch.setattr(profiling.time, "perf_counter", lambda: float(next(clock)))
    rows = profiling.measure(config, pipeline, folder)
  return {row.name: row for row in rows}, folder


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


def test_a_floor_is_the_slower_of_arithmetic_and_memory():
  peak = profiling.Peak(flops=1e12, moved=1e10)
  floor = lambda flops, moved: profiling.floor(
      profiling.Row("", 1.0, flops, moved), peak
  )
  assert floor(2e9, 1e6) == 2.0
  assert floor(1e3, 5e7) == 5.0


def test_the_report_has_shares_and_peaks(monkeypatch, tiny):
  rows = [
      profiling.Row("part", 5.0, 1e9, 1e6), profiling.Row("all", 20.0, 2e9, 0.0)
  ]
  monkeypatch.setattr(profiling, "measure", lambda *_: rows)
  monkeypatch.setattr(
      profiling, "_peak", lambda dtype: profiling.Peak(1e12, 1e10)
  )
  pipeline = model_lib.StableDiffusion(tiny[1], None, None, None)
  lines = profiling.report(tiny[0], pipeline).splitlines()
  assert lines[1].split() == ["part", "5.00", "25.0", "1.000", "0.001", "1.000"]
  assert lines[-1] == "Peak: 1.000 TFLOP/s in float32, 10.0 GB/s."


def test_a_device_has_peaks(monkeypatch):
  monkeypatch.setattr(profiling, "_SIDE", 64)
  monkeypatch.setattr(profiling, "_BYTES", 2**16)
  clock = itertools.count()
  monkeypatch.setattr(
      profiling.time, "perf_counter", lambda: float(next(clock))
  )
  peak = profiling._peak("float32")
  assert peak == (2 * 64**3, 2 * 2**16)
