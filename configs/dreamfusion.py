"""DreamFusion (Poole et al. 2022), its numbers with a Stable Diffusion prior.

Command:   dreamjax --config=dreamfusion --weights=DIR --prompt="a corgi"
           --workdir=out/corgi
Hardware:  a GPU with 24 GB; the paper took 1.5 hours on four TPUv4 chips.
Time:      hours; not yet measured here.
Result:    what latent-space DreamFusion is known for: right shapes, smooth
           and saturated; several faces where the prior prefers fronts.

What the paper does not have or does not say is ours: the prior (there Imagen
at 64 pixels), the background network's size, uniform marching through an
occupancy grid, and Adam in place of Distributed Shampoo, whose learning-rate
curve (a warm-up over 3000 steps, a cosine to a hundredth) it keeps.
"""

import math

from dreamjax import config

_STEPS = 15_000


def _fov_degrees(focal):
  """Field of view of a focal length in image widths."""
  return math.degrees(2 * math.atan(1 / (2 * focal)))


def get_config():
  return config.Config(
      camera=config.CameraConfig(
          distance=(1.0, 1.5),
          distance_unit="scene",
          fov_degrees=(_fov_degrees(1.35), _fov_degrees(0.7)),
          fov_uniform_in="focal",
          elevation_degrees=(-10.0, 90.0),
          elevation_area_probability=0.5,
          position_jitter=0.1,
          target_jitter=0.2,
          up_jitter=0.02,
      ),
      shading=config.ShadingConfig(
          light="point",
          light_distance=(0.8, 1.5),
          light_jitter=1.0,
          ambient=(0.1, 0.1),
          albedo_until=1000 / _STEPS,
          shaded_probability=0.75,
          textureless_probability=0.5,
      ),
      background=config.BackgroundConfig(plain_probability=0.0),
      field=config.FieldConfig(
          kind="mlp",
          activation="exp",
          blob_scale=5.0,
          blob_width=0.2,
          width=128,
          layers=5,
          frequencies=8,
          ipe_variance=config.Schedule(5e-2, 2e-3, finish=5000 / _STEPS),
      ),
      render=config.RenderConfig(resolution=64, bound=1.4),
      prompt=config.PromptConfig(blend="nearest", overhead_degrees=60.0),
      guidance=config.GuidanceConfig(
          # The paper's weight w = 100 in (1 + w) c - w u is s = w + 1 here.
          scale=config.constant(101.0),
          weighting="sds",
          t_min=config.constant(0.02),
          t_max=config.constant(0.98),
          dtype="bfloat16",
      ),
      loss=config.LossConfig(
          orientation=config.Schedule(1e-4, 1e-2, finish=5000 / _STEPS),
          opacity=config.constant(1e-3),
      ),
      optimizer=config.OptimizerConfig(
          network=1e-3,
          background=1e-3,
          decay=1e-6 / 1e-4,
          warmup=3000 / _STEPS,
      ),
      train=config.TrainConfig(
          steps=_STEPS, views=4, checkpoint_every=1000, preview_every=500
      ),
  )
