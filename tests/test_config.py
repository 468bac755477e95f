"""Configs that mean nothing are refused, with the value and what is wanted."""

import pytest

from dreamjax import config


@pytest.mark.parametrize(
    "make, changes, message",
    [
        (config.Schedule, {"shape": "cubic"}, "shape is 'cubic', want one of"),
        (config.Schedule, {"begin": 0.5, "finish": 0.2}, "begin 0.5 and"),
        (config.Schedule, {"shape": "exponential"}, "both must be positive"),
        (config.PromptConfig, {"views": ()}, "views is empty"),
        (config.PromptConfig, {"blend": "cubic"}, "blend is 'cubic'"),
        (
            config.GuidanceConfig,
            {"fixed_noise": config.Schedule(0.0, 1.5)},
            "fixed_noise is 1.5",
        ),
        (config.GuidanceConfig, {"latent_warmup": 0.6}, "latent_warmup is 0.6"),
        (config.GuidanceConfig, {"residual": "image", "sharpen": -1.0},
         "sharpen is -1.0, want at least 0"),
        (config.GuidanceConfig, {"sharpen": 1.5},
         "sharpen is 1.5, but residual is 'latent'"),
        (
            config.PromptConfig,
            {"blend": "bilinear", "overhead_degrees": 0.0},
            "overhead_degrees is 0.0",
        ),
        (config.RenderConfig, {"occupancy_every": 0},
         "occupancy_every is 0, want at least 1"),
        (config.GuidanceConfig, {"weighting": "sigma"}, "weighting is 'sigma'"),
        (config.GuidanceConfig, {"noise_samples": 0}, "noise_samples is 0"),
        (config.GuidanceConfig, {"t_min": config.constant(0.99)},
         "t_min.start 0.99 and t_max.start 0.98"),
        (config.GuidanceConfig, {"t_max": config.Schedule(0.9, 20.0)},
         "t_max.end 20.0 must"),
        (config.OptimizerConfig, {"warmup": 1.5}, "warmup is 1.5, want 0 to 1"),
        (config.TrainConfig, {"views": 0}, "views is 0, want at least 1"),
    ],
)
def test_a_value_out_of_its_range_is_refused(make, changes, message):
  with pytest.raises(ValueError, match=message):
    make(**changes)


def test_a_constant_never_moves():
  schedule = config.constant(0.3)
  assert schedule.start == schedule.end == 0.3
