"""stable-dreamfusion's `-O` recipe: a hash grid and Stable Diffusion.

Command:   dreamjax --config=stable_dreamfusion --weights=DIR
           --prompt="a hamburger" --workdir=out/hamburger
Hardware:  a GPU with 16 GB.
Time:      about an hour is reported for the original; not yet measured here.
Result:    a coloured object of the right outline; one view per step makes it
           noisier than `dreamfusion`, and negative prompts help; against
           several faces its `--perpneg` is `--config.guidance.perp_neg=2`.

The original sums the distillation gradient over the 4 x 64 x 64 latent
numbers of a view, ours is their mean. Weights of regularisers are therefore
divided by 16384; its entropy is in bits, ours in nats.

Not taken over: Adam, the original's second choice, stands for Adan.
"""

import math

from dreamjax import config

_LATENT_SIZE = 4 * 64 * 64


def get_config():
  return config.Config(
      camera=config.CameraConfig(
          distance=(3.0, 3.5),
          distance_unit="scene",
          fov_degrees=(10.0, 30.0),
          elevation_degrees=(-15.0, 45.0),
          elevation_area_probability=0.0,
      ),
      shading=config.ShadingConfig(
          light="directional",
          light_jitter=1.0,
          ambient=(0.1, 1.0),
          albedo_until=0.2,
          shaded_probability=1.0,
          textureless_probability=0.2,
      ),
      background=config.BackgroundConfig(
          # Gray 0.5 with half a unit of tint: uniform in the colour cube.
          plain_probability=0.5,
          plain_gray=(0.5, 0.5),
          plain_tint=0.5,
          frequencies=6,
          width=32,
          layers=1,
      ),
      field=config.FieldConfig(
          kind="hashgrid",
          activation="exp",
          blob_scale=5.0,
          blob_width=0.2,
          levels=16,
          features=2,
          log2_table_size=19,
          base_resolution=16,
          max_resolution=2048,
          smoothstep=True,
          active_levels=config.constant(16),
          width=64,
          layers=2,
      ),
      render=config.RenderConfig(resolution=64, bound=1.0, steps=256),
      prompt=config.PromptConfig(blend="linear"),
      guidance=config.GuidanceConfig(
          scale=config.constant(100.0),
          weighting="sds",
          t_min=config.constant(0.02),
          t_max=config.constant(0.98),
          latent_warmup=0.2,
          dtype="bfloat16",
      ),
      loss=config.LossConfig(
          orientation=config.constant(1e-2 / _LATENT_SIZE),
          entropy=config.Schedule(
              0.0, 1e-3 / math.log(2) / _LATENT_SIZE, finish=0.5
          ),
      ),
      optimizer=config.OptimizerConfig(
          table=1e-2,
          network=1e-3,
          background=1e-3,
          decay=1.0,
          warmup=0.0,
          ema=0.95,
      ),
      train=config.TrainConfig(
          steps=10_000, views=1, checkpoint_every=1000, preview_every=500
      ),
  )
