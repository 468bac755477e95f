"""A device's best, by a clock that ticks when asked."""

import itertools
import time

from dreamjax import roofline


def test_a_floor_is_the_slower_of_arithmetic_and_memory():
  peak = roofline.Peak(flops=1e12, moved=1e10)
  assert roofline.floor(2e9, 1e6, peak) == 2.0
  assert roofline.floor(1e3, 5e7, peak) == 5.0


def test_a_device_has_peaks(monkeypatch):
  monkeypatch.setattr(roofline, "_SIDE", 64)
  monkeypatch.setattr(roofline, "_BYTES", 2**16)
  monkeypatch.setattr(roofline, "_COPIES", 4)
  clock = itertools.count()
  monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
  peak = roofline.measure("float32")
  assert peak == (2 * 64**3, 4 * 2 * 2**16)
