"""What XLA is told before it compiles: where to keep programs, and how."""

import hashlib
from importlib import metadata
import os
import pathlib

# Of the folder of programs; what was not read for longest goes first.
_MAX_BYTES = 2**31
# Programs that compile faster are not kept.
_MIN_SECONDS = 0.1
# XLA of these jaxlibs has YNNPACK convolve on CPUs, which takes up to half as
# long again as Eigen on two cores. What of it is worth having there:
_SLOW_CONVOLUTIONS = "0.10."
_LIBRARY_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
_LIBRARY = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"


def configure(keep: bool) -> None:
  """Sets environment variables of XLA and JAX; what the user has set stays.

  To be called before anything is compiled; to keep programs, before JAX is
  imported.

  Args:
    keep: whether compiled programs are kept for the next process. A program is
      found again by its text, the versions of JAX and its plugins, the
      compiler's flags and the kind of device. The folder is the user's cache
      folder, with a part for each kind of processor, since a home may be
      shared; if it cannot be written, JAX warns and compiles.
      JAX_COMPILATION_CACHE_DIR names another, JAX_ENABLE_COMPILATION_CACHE=0
      keeps nothing.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  slow = metadata.version("jaxlib").startswith(_SLOW_CONVOLUTIONS)
  if slow and _LIBRARY_FLAG not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {_LIBRARY_FLAG}={_LIBRARY}".strip()
  if keep and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(_folder()),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(_MAX_BYTES),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(_MIN_SECONDS),
    }
    os.environ.update(settings | os.environ)


def _folder() -> pathlib.Path:
  """Where programs for this machine's processor are kept."""
  root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
  except OSError:
    text = ""
  kinds = {
      line
      for line in text.splitlines()
      if line.startswith(("model name", "flags", "Features"))
  }
  digest = hashlib.sha256("\n".join(sorted(kinds)).encode()).hexdigest()
  return pathlib.Path(root, "dreamjax", digest[:12])
