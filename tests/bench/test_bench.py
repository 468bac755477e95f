"""The benchmark runs, and its functions agree."""

import json
import os
import pathlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "cases, count",
    [("composite", 2), pytest.param("", 21, marks=pytest.mark.slow)],
)
def test_every_case_gives_a_line_and_equal_results(cases, count):
  script = pathlib.Path(__file__).parent / "kernels.py"
  done = subprocess.run(
      [
          sys.executable,
          script,
          "--log2_points=9",
          "--repeats=2",
          f"--cases={cases}",
      ],
      # Its own folder is where a script finds its modules.
      env={k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"},
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr
  lines = [json.loads(line) for line in done.stdout.splitlines()]
  assert len({line["case"] for line in lines}) == len(lines) == count
  for line in lines:
    assert line["value"] > 0 and line["ratio"] > 0
    assert {"jax", "commit", "processor", "device"} <= line.keys()
    # The finest level has cells of 5e-4: a position's last bit is 1e-4 of one.
    assert line["error"] < 2e-4, line
