"""Settings of all tests: CPU, eight virtual devices, no silent promotion.

The processes of a test run share compiled programs, and so do later runs.
"""

import os
import pathlib

# Before jax is imported; a GPU run says JAX_PLATFORMS=cuda,cpu itself.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
)

# `pytest --cache-clear` empties it. Without a limit none waits for another.
_PROGRAMS = pathlib.Path(__file__).parents[1] / ".pytest_cache/d/programs"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_PROGRAMS))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

# pylint: disable=g-import-not-at-top
from dreamjax import compiler

# As the command does it: a test may go on with what a command began.
compiler.configure(keep=False)

import jax
import pytest

import dreamjax

# A child process tests the package that this one tests, not the folder that it
# is started in.
os.environ["PYTHONPATH"] = str(pathlib.Path(dreamjax.__file__).parents[1])
os.environ["PYTHONSAFEPATH"] = "1"

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_enable_custom_prng", True)


def _are_fast(config):
  """Whether no other tests than those of the default were asked for."""
  *_, fast = config.getini("addopts")
  return config.option.markexpr == fast


def pytest_configure(config):
  """Halves the compiler's time, most of fast tests; computing is little."""
  if _are_fast(config):  # XLA reads it when a device is first asked for.
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
  """Processes for fast tests; others want the machine, or show what they say."""
  if not _are_fast(config) or config.option.capture == "no":
    return 0
  return min(len(os.sched_getaffinity(0)), 4)


def pytest_report_header():
  """Which package is tested, and what it was compiled for."""
  from dreamjax.ops import kernels

  folder = pathlib.Path(dreamjax.__file__).parent
  return f"dreamjax: {folder}; {kernels.status()}"


@pytest.fixture(scope="session")
def tiny():
  """(config, model): a whole step, as small as it can be."""
  from dreamjax import config
  from dreamjax.diffusion import clip, model, unet, vae

  networks = model.Model(
      clip.CLIPConfig(
          vocab_size=16,
          hidden_size=16,
          intermediate_size=32,
          num_hidden_layers=1,
          num_attention_heads=2,
          max_position_embeddings=4,
      ),
      vae.VAEConfig(
          sample_size=16, block_out_channels=(8, 16), norm_num_groups=4
      ),
      unet.UNetConfig(
          sample_size=8,
          down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
          up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
          block_out_channels=(8, 16),
          layers_per_block=1,
          attention_head_dim=2,
          cross_attention_dim=16,
          norm_num_groups=4,
      ),
  )
  run = config.Config(
      field=config.FieldConfig(kind="mlp", width=8, layers=1, frequencies=2),
      shading=config.ShadingConfig(shaded_probability=0.0),
      render=config.RenderConfig(
          resolution=8,
          steps=8,
          samples_per_ray=8,
          occupancy_resolution=8,
          occupancy_every=2,
      ),
      guidance=config.GuidanceConfig(noise_samples=2),
      train=config.TrainConfig(steps=8, views=4, steps_per_dispatch=2),
  )
  return run, networks
