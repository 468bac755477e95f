"""Settings of all tests: CPU, eight virtual devices, no silent promotion."""

import os

# Before jax is imported; a GPU run says JAX_PLATFORMS=cuda,cpu itself.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
)

import jax  # pylint: disable=g-import-not-at-top

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_enable_custom_prng", True)
