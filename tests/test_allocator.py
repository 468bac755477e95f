"""Tests of dreamjax.allocator."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
import numpy as np
from dreamjax import allocator

kept = sys.argv[1] != "leave" and allocator.keep_freed_memory(
    large=sys.argv[1] == "large"
)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
size = int(sys.argv[2])
np.ones(size, np.uint8)
before = faults()
for _ in range(20):
  np.ones(size, np.uint8)
print(int(kept), faults() - before)
"""


def page_faults(word, size=2**24):
  done = subprocess.run(
      [sys.executable, "-c", _PROGRAM, word, str(size)],
      capture_output=True,
      check=True,
  )
  return map(int, done.stdout.split())


@pytest.mark.parametrize("word", ["small", "large"])
def test_freed_memory_is_used_again(word):
  _, usual = page_faults("leave")
  kept, fewer = page_faults(word)
  # 16 MiB are 4096 pages, or 8 huge ones.
  assert not kept or fewer < max(usual / 4, 100)


def test_large_arrays_are_given_back_unless_asked_for():
  small, faults = page_faults("small", 2**26)
  large, fewer = page_faults("large", 2**26)
  # 64 MiB are 16384 pages, or 32 huge ones, 20 times.
  assert not small or faults > 500
  assert not large or fewer < 500
