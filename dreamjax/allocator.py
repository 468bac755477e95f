"""How the C library's allocator treats XLA's temporary arrays."""

import ctypes
import sys

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_PAD_BYTES = 2**26


def keep_freed_memory() -> bool:
  """Keeps memory that XLA frees, for the next step to use again.

  XLA:CPU allocates and frees every temporary array of every step. glibc hands
  large ones back to the kernel, which clears each page again at the next use:
  up to a third of a training step. With one arena that is never trimmed they
  stay; the process then holds its peak until it ends.

  To be called before threads are started. Does nothing where the C library
  is another one.

  Returns:
    Whether the allocator was told.
  """
  if not sys.platform.startswith("linux"):
    return False
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None:
    return False
  settings = (
      (_ARENA_MAX, 1),
      (_MMAP_MAX, 0),
      (_TRIM_THRESHOLD, 2**31 - 1),
      (_TOP_PAD, _PAD_BYTES),
  )
  # A C library that ignores mallopt, such as musl's, answers 0.
  return all([mallopt(name, value) == 1 for name, value in settings])
