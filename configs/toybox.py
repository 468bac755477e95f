"""The default: a toy from the embedded prior, on two CPU cores.

Command:   dreamjax --prompt="a red mug" --workdir=out/red-mug
Hardware:  two CPU cores, no GPU, no network.
Time:      at most 6 minutes, under 4 GB of memory.
Result:    the toy that was asked for, recognisable from all sides in
           sheet.png, its front where it belongs (azimuth 0).

The prior draws 64-pixel views, so a small hash grid holds all that it can
say. It was taught all eight words for the sides of an object, "left" and
"right" included: they say more than DreamFusion's single "side view".
"""

from dreamjax import config


def get_config():
  return config.Config(
      camera=config.CameraConfig(
          distance=(0.95, 1.1),
          distance_unit="frame",
          fov_degrees=(38.0, 42.0),
          elevation_degrees=(-10.0, 85.0),
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
          levels=8,
          features=4,
          log2_table_size=15,
          base_resolution=8,
          max_resolution=128,
          active_levels=config.Schedule(4, 8, begin=0.0, finish=0.5),
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
          overhead_degrees=60.0,
      ),
      train=config.TrainConfig(steps=600, views=4),
  )
