"""The default: a toy from the embedded prior, on two CPU cores.

Command:   dreamjax --prompt="a red mug" --workdir=out/red-mug
Hardware:  two CPU cores, no GPU, no network.
Time:      docs/toybox.md has the minutes, the memory and the results.
Result:    the toy that was asked for, as far as the prior knows it, its
           front at azimuth 0.

The prior draws 64-pixel views, so a small hash grid holds all that it can
say. It was taught eight words for the sides of an object, "left" and "right"
included, and that between two of them, or between them and "overhead", lies
the exact angle: every view is asked for as it is seen.
"""

from dreamjax import config


def get_config():
  return config.Config(
      camera=config.CameraConfig(
          distance=(1.02, 1.02),
          distance_unit="frame",
          fov_degrees=(38.0, 42.0),
          elevation_degrees=(-10.0, 90.0),
          elevation_area_probability=1.0,
      ),
      shading=config.ShadingConfig(
          light="directional",
          light_jitter=1.2,
          light_lift=1.0,
          ambient=(0.35, 0.65),
          albedo_until=0.0,
          shaded_probability=0.75,
          textureless_probability=0.0,
      ),
      background=config.BackgroundConfig(
          plain_gray=(0.25, 0.85), plain_tint=0.1
      ),
      field=config.FieldConfig(
          activation="softplus",
          blob_scale=6.0,
          blob_width=0.7,
          levels=5,
          features=4,
          log2_table_size=18,
          base_resolution=8,
          max_resolution=64,
          smoothstep=True,
          active_levels=config.Schedule(2, 5, finish=0.7),
          width=32,
      ),
      render=config.RenderConfig(
          resolution=64,
          bound=1.1,
          steps=62,
          samples_per_ray=20,
          # All the samples of a step at once: nothing is computed twice.
          samples_per_chunk=20 * 4 * 64 * 64,
          occupancy_threshold=1.0,
      ),
      prompt=config.PromptConfig(
          views=(
              (0.0, "front view"),
              (45.0, "front left view"),
              (90.0, "left side view"),
              (135.0, "back left view"),
              (180.0, "back view"),
              (225.0, "back right view"),
              (270.0, "right side view"),
              (315.0, "front right view"),
          ),
          overhead="overhead view",
          overhead_degrees=90.0,
          blend="bilinear",
      ),
      # Pictures that the prior samples, not means that it guesses: small as it
      # is, it denies the eyes of a face that has none yet.
      # The first half asks for whole pictures, of which the mean has the right
      # shape and colours; the second sharpens one answer from all sides, which
      # has a face.
      guidance=config.GuidanceConfig(
          scale=config.Schedule(2.0, 3.0, begin=0.5),
          weighting="x0",
          weight_cap=5.0,
          denoise_steps=2,
          residual="image",
          # They are soft at the edges, and objects would become so too.
          sharpen=1.5,
          fixed_noise=config.Schedule(0.0, 1.0, begin=0.5),
          t_min=config.Schedule(0.8, 0.1, begin=0.5),
          t_max=config.Schedule(0.98, 0.4, begin=0.5),
      ),
      loss=config.LossConfig(entropy=config.Schedule(0.0, 0.02, begin=0.4)),
      optimizer=config.OptimizerConfig(table=5e-2, network=5e-3, decay=0.15),
      train=config.TrainConfig(steps=600, views=4),
      output=config.OutputConfig(mesh_density=5.0),
  )
