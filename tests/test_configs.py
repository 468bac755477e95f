"""The shipped recipes against the numbers that were published.

Sources: DreamFusion is Poole et al., "DreamFusion: Text-to-3D using 2D
Diffusion" (2022), sections 3.1, 3.2, A.2 and A.3. stable-dreamfusion is
github.com/ashawkey/stable-dreamfusion at 5550b91, `main.py -O` and nerf/.
"""

import math

import numpy as np
import pytest

from dreamjax import config
from dreamjax import config_io


@pytest.fixture(name="dreamfusion", scope="module")
def fixture_dreamfusion():
  return config_io.load("dreamfusion")


@pytest.fixture(name="stable", scope="module")
def fixture_stable():
  return config_io.load("stable_dreamfusion")


def test_dreamfusion_cameras(dreamfusion):
  camera = dreamfusion.camera
  assert camera.distance == (1.0, 1.5)
  assert camera.distance_unit == "scene"
  assert camera.elevation_degrees == (-10.0, 90.0)
  assert camera.elevation_area_probability == 0.5
  assert camera.azimuth_degrees == (-180.0, 180.0)
  jitters = camera.position_jitter, camera.target_jitter, camera.up_jitter
  assert jitters == (0.1, 0.2, 0.02)
  # Focal length U(0.7, 1.35) in image widths.
  assert camera.fov_uniform_in == "focal"
  focal = 0.5 / np.tan(np.radians(camera.fov_degrees) / 2)
  np.testing.assert_allclose(focal, [1.35, 0.7], rtol=1e-12)


def test_dreamfusion_light(dreamfusion):
  shading = dreamfusion.shading
  assert shading.light == "point"
  assert shading.light_distance == (0.8, 1.5)
  assert (shading.light_jitter, shading.light_lift) == (1.0, 0.0)
  assert shading.ambient == (0.1, 0.1)
  assert shading.albedo_until * dreamfusion.train.steps == pytest.approx(1000)
  assert shading.shaded_probability == 0.75
  assert shading.textureless_probability == 0.5


def test_dreamfusion_field(dreamfusion):
  field = dreamfusion.field
  assert (field.kind, field.layers, field.width) == ("mlp", 5, 128)
  assert field.frequencies == 8
  assert field.activation == "exp"
  assert (field.blob_scale, field.blob_width) == (5.0, 0.2)
  variance = field.ipe_variance
  assert (variance.start, variance.end) == (5e-2, 2e-3)
  assert variance.finish * dreamfusion.train.steps == pytest.approx(5000)
  assert dreamfusion.render.bound == 1.4
  assert dreamfusion.render.resolution == 64
  assert dreamfusion.background.plain_probability == 0.0


def test_dreamfusion_guidance_and_prompts(dreamfusion):
  guidance = dreamfusion.guidance
  # (1 + w) c - w u with w = 100
  assert guidance.scale == config.constant(100 + 1)
  assert guidance.weighting == "sds"
  assert guidance.t_min == config.constant(0.02)
  assert guidance.t_max == config.constant(0.98)
  prompt = dreamfusion.prompt
  assert prompt.overhead_degrees == 60.0
  assert prompt.blend == "nearest"
  assert [azimuth for azimuth, _ in prompt.views] == [0, 90, 180, 270]


def test_dreamfusion_losses_and_optimisation(dreamfusion):
  orientation = dreamfusion.loss.orientation
  assert (orientation.start, orientation.end) == (1e-4, 1e-2)
  assert orientation.finish * dreamfusion.train.steps == pytest.approx(5000)
  assert 1e-3 <= dreamfusion.loss.opacity.start <= 5e-3
  assert dreamfusion.train.steps == 15_000
  assert dreamfusion.train.views == 4
  optimizer = dreamfusion.optimizer
  assert optimizer.warmup * dreamfusion.train.steps == pytest.approx(3000)
  assert optimizer.decay == pytest.approx(1e-6 / 1e-4)


def test_stable_dreamfusion_cameras_and_light(stable):
  camera = stable.camera
  assert camera.distance == (3.0, 3.5)
  assert camera.fov_degrees == (10.0, 30.0)
  # Polar angle 45 to 105 degrees.
  assert camera.elevation_degrees == (90.0 - 105.0, 90.0 - 45.0)
  shading = stable.shading
  assert shading.light == "directional"
  assert shading.ambient == (0.1, 1.0)
  assert shading.albedo_until == 0.2
  assert shading.textureless_probability == 0.2


def test_stable_dreamfusion_field_and_background(stable):
  field = stable.field
  assert field.kind == "hashgrid"
  assert (field.levels, field.features) == (16, 2)
  assert field.log2_table_size == 19
  assert (field.base_resolution, field.max_resolution) == (16, 2048)
  assert field.smoothstep
  assert (field.width, field.layers) == (64, 2)  # three linear layers
  assert field.activation == "exp"
  assert (field.blob_scale, field.blob_width) == (5.0, 0.2)
  background = stable.background
  assert background.plain_probability == 0.5
  # Uniform in the colour cube.
  assert (background.plain_gray, background.plain_tint) == ((0.5, 0.5), 0.5)
  assert background.frequencies == 6
  assert (background.width, background.layers) == (32, 1)  # two linear layers
  assert stable.render.bound == 1.0
  assert stable.render.resolution == 64


def test_stable_dreamfusion_guidance_and_losses(stable):
  guidance = stable.guidance
  assert guidance.scale == config.constant(100.0)
  assert guidance.weighting == "sds"
  assert guidance.t_min == config.constant(0.02)
  assert guidance.t_max == config.constant(0.98)
  assert guidance.latent_warmup == 0.2
  assert stable.prompt.blend == "linear"
  # There sums over the latent and bits, here means and nats.
  assert stable.loss.orientation.start * 16384 == pytest.approx(1e-2)
  entropy = stable.loss.entropy
  assert entropy.end * 16384 * math.log(2) == pytest.approx(1e-3)
  assert (entropy.start, entropy.finish) == (0.0, 0.5)
  assert stable.loss.opacity == config.constant(0.0)


def test_stable_dreamfusion_optimisation(stable):
  optimizer = stable.optimizer
  assert optimizer.network == 1e-3
  assert optimizer.table == 10 * optimizer.network
  assert (optimizer.decay, optimizer.ema) == (1.0, 0.95)
  assert (stable.train.steps, stable.train.views) == (10_000, 1)


def test_toybox_names_all_eight_sides():
  prompt = config_io.load("toybox").prompt
  assert prompt.views == (
      (0.0, "front view"),
      (45.0, "front left view"),
      (90.0, "left side view"),
      (135.0, "back left view"),
      (180.0, "back view"),
      (225.0, "back right view"),
      (270.0, "right side view"),
      (315.0, "front right view"),
  )
  assert (prompt.overhead, prompt.overhead_degrees) == ("overhead view", 90.0)
  assert prompt.blend == "bilinear"
