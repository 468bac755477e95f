"""Compiles and runs the C++ tests of the kernels with the system compiler."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TESTS = sorted(pathlib.Path(__file__).parent.glob("*_test.cc"))
COMPILER = shutil.which(os.environ.get("CXX", "c++"))


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize("test", TESTS, ids=lambda path: path.stem)
def test_passes(test, tmp_path):
  binary = tmp_path / test.stem
  sources = [test, *ROOT.glob("kernels/*_cpu.cc")]
  subprocess.run(
      [COMPILER, "-std=c++17", "-O1", "-ffp-contract=off", "-pthread"]
      + [f"-I{ROOT / 'kernels'}", f"-I{test.parent}"]
      + [*map(str, sources), "-o", str(binary)],
      check=True,
  )
  subprocess.run([binary], check=True, timeout=120)


def test_there_are_tests():
  assert len(TESTS) >= 3
