"""The benchmarks run, and the functions of a case agree."""

import json
import os
import pathlib
import subprocess
import sys

import pytest


def run(name, *words):
  """Records of a benchmark."""
  script = pathlib.Path(__file__).parent / name
  done = subprocess.run(
      [sys.executable, script, *words],
      # Its own folder is where a script finds its modules.
      env={k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"},
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr
  lines = [json.loads(line) for line in done.stdout.splitlines()]
  for line in lines:
    assert line["value"] > 0 and line["ratio"] > 0
    assert {"jax", "commit", "processor", "device"} <= line.keys()
  return lines


@pytest.mark.parametrize(
    "cases, count",
    [("composite", 2), pytest.param("", 22, marks=pytest.mark.slow)],
)
def test_every_kernel_gives_a_line_and_equal_results(cases, count):
  lines = run(
      "kernels.py", "--log2_points=9", "--repeats=2", f"--cases={cases}"
  )
  assert len({line["case"] for line in lines}) == len(lines) == count
  # The finest level has cells of 5e-4: a position's last bit is 1e-4 of one.
  # Of a render's millions of candidates a few are in one cell or the next.
  for line in lines:
    bound = 1e-2 if line["case"].startswith("render") else 2e-4
    assert line["error"] < bound


@pytest.mark.parity
def test_a_step_gives_an_image_the_gradient_that_pytorch_gives_it():
  pytest.importorskip("diffusers")
  (line,) = run("sds_step.py", "--views=1", "--repeats=1", "--warm_ups=0")
  assert line["error"] < 1e-4
  assert line["views"] == 1 and line["PyTorch"] > 0 and line["floor"] > 0
