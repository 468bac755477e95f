"""Times functions in turn and says where; what the benchmarks share."""

import json
import pathlib
import platform
import subprocess
import sys
import time

from absl import flags
import jax
import numpy as np

import dreamjax
from dreamjax.ops import kernels

_REPEATS = flags.DEFINE_integer("repeats", 30, "Timed runs of each function.")
_WARM_UPS = flags.DEFINE_integer("warm_ups", 3, "Runs before these.")
_CASES = flags.DEFINE_string("cases", "", "Only cases with this in their name.")
_TABLE = flags.DEFINE_bool("table", False, "Rows of Markdown, not JSON.")


def _error(result, reference):
  """Largest difference over the largest number, over all arrays."""
  pairs = zip(jax.tree.leaves(result), jax.tree.leaves(reference), strict=True)
  return max(
      float(np.abs(np.float64(a) - np.float64(b)).max())
      / (float(np.abs(np.float64(b)).max()) + 1e-30)
      for a, b in pairs
  )


def _measure(arrays, functions):
  """({who: milliseconds of each run}, error of the kernel)."""
  compiled = {
      who: jax.jit(function).lower(*arrays).compile()
      for who, function in functions.items()
  }
  results = {who: run(*arrays) for who, run in compiled.items()}
  error = max(_error(results["kernel"], result) for result in results.values())
  times = {who: [] for who in compiled}
  for repeat in range(_WARM_UPS.value + _REPEATS.value):
    for who, run in compiled.items():
      start = time.perf_counter()
      jax.block_until_ready(run(*arrays))
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


def _line(name, times, error, num_points):
  """The record of a case."""
  median = {who: float(np.median(runs)) for who, runs in times.items()}
  best = min((who for who in median if who != "kernel"), key=median.get)
  return {
      "case": name,
      "points": num_points,
      "value": round(median["kernel"], 3),
      "unit": "ms",
      "p90": round(float(np.quantile(times["kernel"], 0.9)), 3),
      "points_per_second": float(
          f"{num_points / median['kernel'] * 1e3:.3g}"
      ),
      "ratio": round(median[best] / median["kernel"], 2),
      "best": best,
      **{who: round(median[who], 3) for who in median if who != "kernel"},
      "error": float(f"{error:.1e}"),
      "repeats": _REPEATS.value,
  }


def _row(line):
  """The record as a row of Markdown."""
  number = lambda key: f"{line[key]:.3g}" if key in line else ""
  return (
      f"| {line['case']} | {number('value')} | {number('definition')} |"
      f" {number('natural')} | {line['ratio']:.1f} | {line['error']:.0e} |"
  )


def run(cases, num_points):
  """Measures cases and prints a line for each.

  Args:
    cases: iterable of (name, (arrays, {who: function})); one is "kernel".
    num_points: N, for the rate.
  """
  here = environment()
  if _TABLE.value:
    print("| case | kernel | definition | natural | ratio | error |")
    print("| --- | --- | --- | --- | --- | --- |")
  for name, (arrays, functions) in cases:
    if _CASES.value in name:
      line = _line(name, *_measure(arrays, functions), num_points)
      text = json.dumps(line | here)
      print(_row(line) if _TABLE.value else text, flush=True)
  print(json.dumps(here), file=sys.stderr)
