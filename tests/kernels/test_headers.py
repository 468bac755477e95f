"""Compiles and runs the C++ tests of the kernels with the system compiler."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TESTS = sorted(pathlib.Path(__file__).parent.glob("*_test.cc"))
COMPILER = shutil.which(os.environ.get("CXX", "c++"))


def _compile(*arguments):
  subprocess.run(
      [COMPILER, "-std=c++17", "-O1", "-ffp-contract=off", "-pthread"]
      + [f"-I{ROOT / 'kernels'}", f"-I{pathlib.Path(__file__).parent}"]
      + [*map(str, arguments)],
      check=True,
  )


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
  """What the tests link with."""
  folder = tmp_path_factory.mktemp("objects")
  made = []
  for source in ROOT.glob("kernels/*_cpu.cc"):
    made.append(folder / f"{source.stem}.o")
    _compile("-c", source, "-o", made[-1])
  return made


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize("test", TESTS, ids=lambda path: path.stem)
def test_passes(test, objects, tmp_path):
  binary = tmp_path / test.stem
  _compile(test, *objects, "-o", binary)
  subprocess.run([binary], check=True, timeout=120)


def test_there_are_tests():
  assert len(TESTS) >= 3
