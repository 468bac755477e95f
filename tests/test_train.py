"""The whole road, driven by a denoiser whose answers are known.

The world is a red or a green ball, the same from all sides, on gray.
"""

import dataclasses
import functools
import json

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import cameras
from dreamjax import checkpoint
from dreamjax import config as config_lib
from dreamjax import parallel
from dreamjax import prompts
from dreamjax import scene
from dreamjax import train
from dreamjax import workdir
from dreamjax.diffusion import oracle as oracle_lib
from dreamjax.diffusion import schedule as schedule_lib

SIZE = 8
VIEWS = 8
GRAY = 0.5
RADIUS = 0.5
COLORS = ((0.9, 0.1, 0.1), (0.1, 0.8, 0.1))
SCHEDULE = schedule_lib.make(schedule_lib.ScheduleConfig())
FOV = 40.0

CONFIG = config_lib.Config(
    camera=config_lib.CameraConfig(
        distance=(1.0, 1.0), fov_degrees=(FOV, FOV)
    ),
    shading=config_lib.ShadingConfig(shaded_probability=0.0),
    background=config_lib.BackgroundConfig(
        plain_gray=(GRAY, GRAY), plain_tint=0.0
    ),
    field=config_lib.FieldConfig(
        kind="mlp", width=16, layers=1, frequencies=2
    ),
    render=config_lib.RenderConfig(
        resolution=SIZE,
        steps=16,
        samples_per_ray=16,
        occupancy_resolution=8,
        occupancy_every=4,
    ),
    guidance=config_lib.GuidanceConfig(scale=2.0, weighting="x0"),
    optimizer=config_lib.OptimizerConfig(network=2e-2, ema=0.9),
    train=config_lib.TrainConfig(
        steps=60,
        views=VIEWS,
        steps_per_dispatch=8,
        checkpoint_every=40,
        preview_every=0,
    ),
)


def ball(color):
  """f32[SIZE, SIZE, 3], what a camera at any place sees, in 8 x 8 samples."""
  fine = 8 * SIZE
  camera = cameras.orbit(0.0, 0.0, jnp.radians(FOV), cameras.frame_distance(
      jnp.radians(FOV)
  ))
  rays = cameras.camera_rays(camera, fine, fine)
  middle = jnp.sum(rays.origin * rays.direction, axis=-1)
  closest = jnp.sum(rays.origin**2, axis=-1) - middle**2
  inside = (closest < RADIUS**2).reshape(SIZE, 8, SIZE, 8)
  share = jnp.mean(inside, axis=(1, 3), dtype=jnp.float32)[..., None]
  return share * jnp.array(color) + (1 - share) * GRAY


@jax.custom_jvp
def _only_forward(value):
  return value


@_only_forward.defjvp
def _refuse(*_):
  raise AssertionError("the denoiser is being differentiated")


@dataclasses.dataclass(frozen=True)
class World:
  """Stands for diffusion.model.Model; params = (oracle, range of bad t)."""

  image_size: int = SIZE

  def encode_image(self, params, image):
    return 2.0 * image - 1.0

  def denoise(self, params, noisy, t, context):
    world, first, last = params
    noise = oracle_lib.denoise(world, _only_forward(noisy), t, context)
    bad = (first <= t) & (t <= last)
    return jnp.where(bad[:, None, None, None], jnp.nan, noise)


@functools.cache
def prior(share_red=(0.99,), bad=(2000, 2000)):
  """train.Prior of prompts that mean a red ball with given probabilities."""
  vectors = jnp.stack([2.0 * ball(color) - 1.0 for color in COLORS])
  world = oracle_lib.Oracle(
      vectors, SCHEDULE.alphas_cumprod, jnp.float32(10.0)
  )
  red = np.array(share_red, np.float32)
  text = np.log(np.stack([red, 1 - red], axis=-1))[:, None]  # [P, N=1, E=2]
  count = len(CONFIG.prompt.views)
  return train.Prior(
      World(),
      (world, *jnp.array(bad)),
      SCHEDULE,
      prompts.Prompt(
          np.repeat(text[:, None], count, axis=1),
          text,
          np.full_like(text, np.log(0.5)),
      ),
  )


def fit(folder, config=CONFIG, devices=1, calls=100, **world):
  """The state after so many calls of the device, or at the end."""
  known = prior(**world)
  texts = tuple(f"toy {i}" for i in range(len(known.prompt.empty)))
  run = workdir.Run(config, texts, 0, "none")
  where = parallel.layout(len(texts), config.train.views, devices)
  asked = iter(range(1, 1000))
  with workdir.open_for(run, folder) as store:
    return train.fit(
        run, known, store, where, folder, lambda: next(asked) >= calls
    )


def metrics(folder):
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """(folder, final state) of a run that nothing disturbed."""
  folder = tmp_path_factory.mktemp("whole")
  return folder, fit(folder)


def picture(config, state, index=0):
  """Unlit image on gray, seen as in training."""
  angle = jnp.radians(FOV)
  camera = cameras.orbit(
      jnp.array([0.5, 2.0]), 0.3, angle, cameras.frame_distance(angle)
  )
  output = dataclasses.replace(config.output, image_size=SIZE)
  config = dataclasses.replace(config, output=output)
  seen = scene.make(config, state, index).render_views(camera)
  return seen.color - (1 - GRAY) * (1 - seen.opacity[..., None])


def test_a_run_makes_the_object_that_the_denoiser_knows(whole):
  folder, state = whole
  blank = jnp.full((SIZE, SIZE, 3), GRAY)
  target = ball(COLORS[0])
  scale = jnp.mean((blank - target) ** 2)
  for seen in picture(CONFIG, state):
    assert jnp.mean((seen - target) ** 2) < 0.1 * scale
  records = metrics(folder)
  assert [record["step"] for record in records] == list(range(1, 61))
  residual = [record["residual"] for record in records]
  assert state.step == 60 and state.skipped == 0
  print(residual[0], residual[-1], jnp.mean((seen - target) ** 2) / scale)
