"""Tests of dreamjax.allocator."""

import subprocess
import sys

_PROGRAM = """
import resource, sys
import numpy as np
from dreamjax import allocator

kept = sys.argv[1] == "keep" and allocator.keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**24, np.uint8)
before = faults()
for _ in range(20):
  np.ones(2**24, np.uint8)
print(int(kept), faults() - before)
"""


def page_faults(word):
  done = subprocess.run(
      [sys.executable, "-c", _PROGRAM, word], capture_output=True, check=True
  )
  return map(int, done.stdout.split())


def test_freed_memory_is_used_again():
  _, usual = page_faults("leave")
  kept, fewer = page_faults("keep")
  # 16 MiB are 4096 pages, or 8 huge ones.
  assert not kept or fewer < max(usual / 4, 100)
