"""Settings of all tests: CPU, eight virtual devices, no silent promotion."""

import os
import pathlib

# Before jax is imported; a GPU run says JAX_PLATFORMS=cuda,cpu itself.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
)

# pylint: disable=g-import-not-at-top
import jax

import dreamjax

# A child process tests the package that this one tests, not the folder that it
# is started in.
os.environ["PYTHONPATH"] = str(pathlib.Path(dreamjax.__file__).parents[1])
os.environ["PYTHONSAFEPATH"] = "1"

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_enable_custom_prng", True)


def pytest_report_header():
  """Which package is tested, and what it was compiled for."""
  from dreamjax.ops import kernels

  folder = pathlib.Path(dreamjax.__file__).parent
  return f"dreamjax: {folder}; {kernels.status()}"
