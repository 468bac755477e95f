"""How the C library's allocator treats XLA's temporary arrays."""

import ctypes
import sys

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_ARENA_MAX = -8
_PAD_BYTES = 2**26
# The largest threshold that mallopt takes, HEAP_MAX_SIZE / 2.
_LARGE_BYTES = 2**25


def keep_freed_memory(large: bool) -> bool:
  """Keeps memory that XLA frees, for the next step to use again.

  XLA:CPU allocates and frees every temporary array of every step. glibc hands
  large ones back to the kernel, which clears each page again at the next use:
  up to a third of a training step. With one arena that is never trimmed they
  stay; the process then holds its peak until it ends.

  A large array may be kept several times: glibc asks for 96 bytes more than an
  aligned array takes, the rest of its first place goes to others, and so it
  does not fit there again. Where many steps are one call of the device, and
  share one such array, clearing it is cheaper.

  To be called before threads are started. Does nothing where the C library
  is another one.

  Args:
    large: whether arrays of 32 MiB and more are kept too.
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
      (_MMAP_MAX, 0) if large else (_MMAP_THRESHOLD, _LARGE_BYTES),
      (_TRIM_THRESHOLD, 2**31 - 1),
      (_TOP_PAD, _PAD_BYTES),
  )
  # A C library that ignores mallopt, such as musl's, answers 0.
  return all([mallopt(name, value) == 1 for name, value in settings])
