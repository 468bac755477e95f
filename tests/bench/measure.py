"""Times functions in turn and says where; what the benchmarks share."""

import functools
import json
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any, Callable, NamedTuple

from absl import flags
import jax
import numpy as np

import dreamjax
from dreamjax.ops import kernels

_REPEATS = flags.DEFINE_integer("repeats", 30, "Timed runs of each function.")
_WARM_UPS = flags.DEFINE_integer("warm_ups", 3, "Runs before these.")
_CASES = flags.DEFINE_string("cases", "", "Only cases with this in their name.")
_PLOT = flags.DEFINE_string("plot", "", "Also a bar per case, in this file.")
_TABLE = flags.DEFINE_bool("table", False, "Rows of Markdown, not JSON.")


def _error(result, reference):
  """Largest difference over the largest number, over all arrays."""
  pairs = zip(jax.tree.leaves(result), jax.tree.leaves(reference), strict=True)
  return max(
      float(np.abs(np.float64(a) - np.float64(b)).max())
      / (float(np.abs(np.float64(b)).max()) + 1e-30)
      for a, b in pairs
  )


class Case(NamedTuple):
  """Ways to the same arrays.

  Attributes:
    name: of the case.
    make: () -> ({who: () -> arrays}, milliseconds that the device's peak would
      take); the first function is the one in question.
    units: what it does, as {"points": N}.
    more: what else its record says.
  """

  name: str
  make: Callable[[], tuple[dict[str, Callable[[], Any]], float]]
  units: dict[str, int]
  more: dict[str, Any] = {}


def compiled(arrays, functions):
  """{who: () -> arrays} of {who: function of the arrays}."""
  return {
      who: functools.partial(jax.jit(run).lower(*arrays).compile(), *arrays)
      for who, run in functions.items()
  }


def _measure(runs):
  """({who: milliseconds of each run}, error of the first)."""
  first, *others = (jax.tree.map(np.asarray, run()) for run in runs.values())
  error = max(_error(first, other) for other in others)
  times = {who: [] for who in runs}
  for repeat in range(_WARM_UPS.value + _REPEATS.value):
    for who, run in runs.items():
      # Unseen: what another function left in the caches is not this one's.
      jax.block_until_ready(run())
      start = time.perf_counter()
      jax.block_until_ready(run())
      if repeat >= _WARM_UPS.value:
        times[who].append(1e3 * (time.perf_counter() - start))
  return times, error


def _processor():
  """The name of the processor."""
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
  except OSError:
    return platform.processor()
  names = [x for x in text.splitlines() if x.startswith("model name")]
  name = names[0].partition(":")[2].strip() if names else platform.machine()
  return f"{len(names)} x {name}"


def _commit():
  """The commit of this checkout; "+" after it if files differ from it."""
  folder = pathlib.Path(__file__).parent
  git = lambda *words: subprocess.run(
      ["git", *words], cwd=folder, capture_output=True, text=True, check=False
  ).stdout.strip()
  changed = git("status", "--porcelain", "--untracked-files=no")
  return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def environment():
  """What a number depends on."""
  device = jax.devices()[0]
  return {
      "device": device.device_kind,
      "processor": _processor(),
      "kernels": kernels.status(),
      "dreamjax": dreamjax.__version__,
      "jax": jax.__version__,
      "python": platform.python_version(),
      "commit": _commit(),
  }


def _line(case, times, error, floor):
  """The record of a case."""
  median = {who: float(np.median(runs)) for who, runs in times.items()}
  ours, *others = median
  best = min(others, key=median.get)
  rates = {
      f"{unit}_per_second": float(f"{count / median[ours] * 1e3:.3g}")
      for unit, count in case.units.items()
  }
  return {
      "case": case.name,
      **case.units,
      "value": round(median[ours], 3),
      "unit": "ms",
      "p90": round(float(np.quantile(times[ours], 0.9)), 3),
      **rates,
      "floor": float(f"{floor:.3g}"),
      "reached": float(f"{floor / median[ours]:.2g}"),
      "ratio": round(median[best] / median[ours], 2),
      "best": best,
      **{who: round(median[who], 3) for who in others},
      "error": float(f"{error:.1e}"),
      "repeats": _REPEATS.value,
      **case.more,
  }


def _row(cells):
  """A row of Markdown."""
  return f"| {' | '.join(cells)} |"


def _cell(value):
  """Text of a value of a record."""
  return f"{value:.3g}" if isinstance(value, float) else str(value)


def run(cases, columns):
  """Measures cases and prints a line for each.

  Args:
    cases: iterable of Case.
    columns: of the table: {heading: key of the record}.
  """
  here = environment()
  if _TABLE.value:
    print(_row(columns))
    print(_row(["---"] * len(columns)))
  lines = []
  for case in cases:
    if _CASES.value in case.name:
      functions, floor = case.make()
      line = _line(case, *_measure(functions), floor)
      lines.append(line)
      cells = (_cell(line.get(key, "")) for key in columns.values())
      print(
          _row(cells) if _TABLE.value else json.dumps(line | here), flush=True
      )
  if _PLOT.value:
    _plot(_PLOT.value, lines, here)
  print(json.dumps(here), file=sys.stderr)


def _plot(path, lines, here):
  """How many times as fast each case is, as a picture."""
  # Not among the packages that the tests need.
  from matplotlib import pyplot  # pylint: disable=g-import-not-at-top

  figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.28 * len(lines)))
  bars = axes.barh(
      [line["case"] for line in lines], [line["ratio"] for line in lines]
  )
  axes.bar_label(bars, fmt="%.1f", padding=3)
  axes.axvline(1.0, color="black", linewidth=1)
  axes.invert_yaxis()
  axes.margins(x=0.1)
  axes.set_xlabel("median of the fastest other over the median of the first")
  axes.set_title(f"{here['processor']}, jax {here['jax']}, {here['commit']}")
  figure.savefig(path, bbox_inches="tight", dpi=110)
