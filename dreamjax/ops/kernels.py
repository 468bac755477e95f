"""The compiled kernels: load, check, register, call.

The environment variable DREAMJAX_KERNELS chooses: "auto" (default) uses each
compiled kernel that fits this process and says in one line what is missing,
"off" uses the jax.numpy definitions, "require" fails where "auto" would fall
back: at import without any kernels, at the call where a platform has none.
"""

import contextlib
import os
import pathlib
import re

from absl import logging
import jax
from jax.extend import backend

MODES = ("auto", "off", "require")


def runtime_version():
  """(major, minor) of the XLA FFI that the running jaxlib speaks."""
  header = pathlib.Path(jax.ffi.include_dir()) / "xla/ffi/api/c_api.h"
  text = header.read_text(encoding="utf-8")
  return tuple(
      int(re.search(rf"define XLA_FFI_API_{part} (\d+)", text).group(1))
      for part in ("MAJOR", "MINOR")
  )


def _load():
  """Registers what fits.

  Returns:
    ({platform served: names of its targets}, one line that says what is not).
  """
  if _MODE not in MODES:
    raise ValueError(f"DREAMJAX_KERNELS is {_MODE!r}, want one of {MODES}.")
  if _MODE == "off":
    return {}, "switched off by DREAMJAX_KERNELS=off"
  try:
    from dreamjax import _kernels  # pylint: disable=g-import-not-at-top
  except ImportError as error:
    return {}, f"not loaded: {error}"
  # A handler that is newer than the runtime would register without a word
  # and then keep the whole backend from starting.
  built, running = _kernels.ffi_version(), runtime_version()
  if built[0] != running[0] or built[1] > running[1]:
    return {}, (
        f"built for XLA FFI {built[0]}.{built[1]}, this jaxlib speaks"
        f" {running[0]}.{running[1]}; reinstall dreamjax or update jax"
    )
  served = {}
  for platform, targets in _kernels.targets().items():
    for name, capsule in targets.items():
      jax.ffi.register_ffi_target(name, capsule, platform=platform)
    served[platform] = frozenset(targets)
  return served, _kernels.cuda_problem()


_MODE = os.environ.get("DREAMJAX_KERNELS", "auto")
_PLATFORMS, _PROBLEM = _load()
if not _PLATFORMS:
  if _MODE == "require":
    raise ImportError(f"DREAMJAX_KERNELS=require, but kernels are {_PROBLEM}.")
  logging.warning("dreamjax: compiled kernels %s; using jax.numpy.", _PROBLEM)


def status():
  """One line: which platforms run compiled kernels, and why others do not."""
  served = ", ".join(_PLATFORMS) or "none"
  return f"compiled kernels: {served}" + (f" ({_PROBLEM})" if _PROBLEM else "")


@contextlib.contextmanager
def off():
  """What is traced inside is made of definitions, for comparison."""
  global _PLATFORMS  # pylint: disable=global-statement
  platforms, _PLATFORMS = _PLATFORMS, {}
  try:
    yield
  finally:
    _PLATFORMS = platforms


def call(target, definition, results, *arguments, **attributes):
  """Runs a compiled kernel where the platform has it, else its definition.

  A target that only some platforms with kernels have is one that its
  definition makes of other kernels.

  Args:
    target: name of the FFI target.
    definition: function of the arguments that returns a tuple of the same
      results.
    results: tuple of jax.ShapeDtypeStruct.
    *arguments: arrays; batch axes first.
    **attributes: numpy scalars and arrays of exactly the handler's types.
  Returns:
    Tuple of arrays.
  Raises:
    RuntimeError: a platform of this process has no kernels, and they are
      required.
  """
  if not _PLATFORMS:
    return definition(*arguments)

  def kernel(*arguments):
    return tuple(
        jax.ffi.ffi_call(target, results, vmap_method="broadcast_all")(
            *arguments, **attributes
        )
    )

  compiled = {platform.lower() for platform in _PLATFORMS}
  served = {
      platform.lower()
      for platform, targets in _PLATFORMS.items()
      if target in targets
  }
  # Only where it may run is the definition worth tracing: second derivatives
  # of it take many seconds.
  if not backend.backends().keys() - served:
    return kernel(*arguments)
  missing = sorted(backend.backends().keys() - compiled)
  if missing and _MODE == "require":
    raise RuntimeError(
        f"DREAMJAX_KERNELS=require, but {', '.join(missing)} would use the"
        f" jax.numpy definitions; {status()}."
    )
  return jax.lax.platform_dependent(
      *arguments,
      default=definition,
      **{platform: kernel for platform in served},
  )
