"""Compiles and runs the C++ tests of the kernels with the system compiler."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TESTS = sorted(pathlib.Path(__file__).parent.glob("*_test.cc"))
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
# What else the compiler checks, and a race or a wrong address ends the test.
SANITIZERS = {
    "plain": [],
    "address": ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover"],
    "thread": ["-g", "-fsanitize=thread"],
}

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


def _compile(*jobs):
  """Runs the compiler once per list of arguments, all at the same time."""
  command = [
      COMPILER, "-std=c++17", "-O1", "-ffp-contract=off", "-pthread",
      f"-I{ROOT / 'kernels'}", f"-I{pathlib.Path(__file__).parent}",
  ]
  running = [subprocess.Popen([*command, *arguments]) for arguments in jobs]
  assert [job.wait() for job in running] == [0] * len(jobs)


@pytest.fixture(
    scope="module",
    params=[
        "plain",
        pytest.param("address", marks=pytest.mark.slow),
        pytest.param("thread", marks=pytest.mark.slow),
    ],
)
def build(request, tmp_path_factory):
  """Arguments that tests are compiled with: flags, and objects of kernels."""
  flags = SANITIZERS[request.param]
  folder = tmp_path_factory.mktemp(request.param)
  objects = {
      source: folder / f"{source.stem}.o"
      for source in ROOT.glob("kernels/*_cpu.cc")
  }
  _compile(*[
      [*flags, "-c", source, "-o", target] for source, target in objects.items()
  ])
  return [*flags, *objects.values()]


@pytest.mark.parametrize("test", TESTS, ids=lambda path: path.stem)
def test_passes(test, build, tmp_path):
  binary = tmp_path / test.stem
  _compile([test, *build, "-o", binary])
  subprocess.run([binary], check=True, timeout=120)


def test_there_are_tests():
  assert len(TESTS) >= 3
