"""The whole road, driven by a denoiser whose answers are known.

The world is a red or a green ball, the same from all sides, on gray.
"""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import cameras
from dreamjax import checkpoint
from dreamjax import config as config_lib
from dreamjax import memory
from dreamjax import parallel
from dreamjax import prompts
from dreamjax import scene
from dreamjax import step
from dreamjax import train
from dreamjax import views
from dreamjax import workdir
from dreamjax.diffusion import model as diffusion_model
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
        distance=(1.0, 1.0),
        fov_degrees=(FOV, FOV),
        elevation_degrees=(-10.0, 55.0),  # Never overhead.
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
    # Step i has the timestep 1000 (1 - i / 60): the world can tell steps apart.
    guidance=config_lib.GuidanceConfig(
        scale=config_lib.constant(2.0),
        weighting="x0",
        t_min=config_lib.Schedule(1.0, 0.0),
        t_max=config_lib.Schedule(1.0, 0.0),
    ),
    # This epsilon lets Adam forget gradients that are rounding alone: without
    # it their signs, and with them the parameters, depend on the order of sums.
    optimizer=config_lib.OptimizerConfig(
        network=2e-2, epsilon=1e-4, ema=0.9
    ),
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

  def decode_image(self, params, latent):
    return 0.5 * latent + 0.5

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
          text[..., ::-1],  # Wrong, and not to be asked for.
          np.full_like(text, np.log(0.5)),
      ),
  )


def fit(folder, config=CONFIG, devices=1, calls=100, seed=0, **world):
  """The state after so many calls of the device, or at the end."""
  known = prior(**world)
  run = run_of(config, len(known.prompt.empty))._replace(seed=seed)
  where = parallel.layout(len(run.prompts), config.train.views, devices)
  asked = iter(range(1, 1000))
  with workdir.open_for(run, folder) as store:
    return train.fit(
        run, known, store, where, folder, lambda: next(asked) >= calls
    )


def run_of(config, count=1):
  """workdir.Run of so many prompts."""
  texts = tuple(f"toy {i}" for i in range(count))
  return workdir.Run(config, texts, 0, "none")


def one(state, index):
  return jax.tree.map(lambda leaf: leaf[index], state)


def assert_equal(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


def assert_close(left, right):
  """Parameters and their mean, but for the order of sums."""
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
      (left.params, left.ema),
      (right.params, right.ema),
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


def assert_is_ball(state):
  """Ten times better than an empty picture, at 8 x 8 pixels."""
  blank = jnp.full((SIZE, SIZE, 3), GRAY)
  target = ball(COLORS[0])
  scale = jnp.mean((blank - target) ** 2)
  for seen in picture(CONFIG, state):
    assert jnp.mean((seen - target) ** 2) < 0.1 * scale


def test_a_run_makes_the_object_that_the_denoiser_knows(whole):
  folder, state = whole
  assert_is_ball(state)
  assert state.step == 60 and state.skipped == 0
  records = metrics(folder)
  assert [record["step"] for record in records] == list(range(1, 61))
  assert not any(record["skipped"] for record in records)
  # The first rate is zero, so what differs between the first two steps is
  # where they look.
  assert records[0]["opacity"] != records[1]["opacity"]
  occupied = np.unpackbits(state.occupancy.bits)
  assert 0 < occupied.mean() < 1
  found = sorted(path.name for path in (folder / "checkpoints").iterdir())
  assert found == ["00000040", "00000060"]


def test_images_teach_too(whole, tmp_path):
  guidance = dataclasses.replace(CONFIG.guidance, residual="image")
  state = fit(tmp_path, dataclasses.replace(CONFIG, guidance=guidance))
  assert_is_ball(state)
  assert state.skipped == 0
  # The encoder doubles differences, and doubles the way back.
  first, other = metrics(tmp_path)[0], metrics(whole[0])[0]
  np.testing.assert_allclose(
      4 * first["gradient"], other["gradient"], rtol=1e-3
  )


def test_a_stopped_run_goes_on_bit_by_bit(whole, tmp_path):
  folder, state = whole
  stopped = fit(tmp_path, calls=3)
  assert stopped.step == 24
  resumed = fit(tmp_path)
  assert_equal(resumed, state)
  names = ["metrics.jsonl", "checkpoints/00000060/meta.json"]
  for name in names:
    assert (tmp_path / name).read_text() == (folder / name).read_text()


def test_a_budget_that_is_too_small_is_raised_once(tmp_path, caplog):
  config = dataclasses.replace(
      CONFIG, render=dataclasses.replace(CONFIG.render, samples_per_ray=2)
  )
  state = fit(tmp_path / "whole", config)
  # The second call finds out, the others have a slot for every sample.
  short = [x["overflow"] > 0 for x in metrics(tmp_path / "whole")]
  assert short == [False] * 8 + [True] * 8 + [False] * 44
  assert_is_ball(state)
  assert state.demand > 1
  assert caplog.text.count("samples_per_ray=2; from now on it is ") == 1
  # A run that goes on knows what the first one learnt.
  assert fit(tmp_path / "parts", config, calls=2).step == 16
  assert_equal(fit(tmp_path / "parts", config), state)


@pytest.mark.slow
def test_memory_stays_flat_over_two_thousand_steps(tmp_path):
  config = dataclasses.replace(
      CONFIG,
      train=dataclasses.replace(
          CONFIG.train, steps=2000, checkpoint_every=100, preview_every=100
      ),
  )
  run, known = run_of(config), prior()
  arrays, taken = [], []

  def look():
    arrays.append(len(jax.live_arrays()))
    taken.append(memory.resident("VmRSS"))
    return False

  where = parallel.layout(1, config.train.views, 1)
  with workdir.open_for(run, tmp_path) as store:
    train.fit(run, known, store, where, tmp_path, look)
  # All has happened once in the first quarter: pictures and checkpoints too.
  quarter = len(arrays) // 4
  second, last = slice(quarter, 2 * quarter), slice(-quarter, None)
  assert min(arrays[last]) <= max(arrays[second])
  assert min(taken[last]) - max(taken[second]) < 2**24


def test_a_finished_run_is_restored_and_not_trained(whole):
  folder, state = whole
  run = workdir.read_run(folder)
  with workdir.open_for(run, folder) as store:
    assert_equal(train.restore(run, store), state)
  assert_equal(fit(folder, calls=0), state)


def test_a_run_without_checkpoint_cannot_be_restored(tmp_path):
  run = workdir.Run(CONFIG, ("toy",), 0, "none")
  with workdir.open_for(run, tmp_path) as store:
    with pytest.raises(checkpoint.Refused, match="no checkpoint yet"):
      train.restore(run, store)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
  """The state after one call of the device, and its metrics."""
  folder = tmp_path_factory.mktemp("begun")
  return fit(folder, calls=1), metrics(folder)


@pytest.mark.parametrize(
    "devices", [2, pytest.param(4, marks=pytest.mark.slow), 8]
)
def test_device_count_does_not_change_the_run(begun, tmp_path, devices):
  state, records = begun
  shared = fit(tmp_path, devices=devices, calls=1)
  assert shared.step == state.step == 8
  assert_close(shared, state)
  for record, alone in zip(metrics(tmp_path), records, strict=True):
    for name, value in alone.items():
      np.testing.assert_allclose(record[name], value, rtol=1e-3)


@pytest.mark.parametrize(
    "share_red, devices", [((0.99, 0.01, 0.7, 0.3), 4), ((0.99, 0.01), 1)]
)
def test_prompts_do_not_feel_their_neighbours(
    begun, tmp_path, share_red, devices
):
  together = fit(
      tmp_path / "together", devices=devices, share_red=share_red, calls=1
  )
  for i, share in enumerate(share_red):
    alone = fit(tmp_path / f"{i}", share_red=(share,), calls=1)
    assert_close(one(together, i), one(alone, 0))
  assert_close(one(together, 0), one(begun[0], 0))
  kernel = together.params["network"]["Dense_0"]["kernel"]
  assert np.abs(kernel[0] - kernel[1]).max() > 1e-3
  texts = run_of(CONFIG, len(share_red)).prompts
  for folder in workdir.prompt_folders(tmp_path / "together", texts):
    assert len(metrics(folder)) == 8


def test_regularisers_act_on_their_own(tmp_path):
  config = dataclasses.replace(
      CONFIG,
      guidance=dataclasses.replace(CONFIG.guidance, weight_cap=0.0),
      loss=config_lib.LossConfig(opacity=config_lib.constant(1.0)),
  )
  fit(tmp_path, config, calls=1)
  first, last = metrics(tmp_path)[0], metrics(tmp_path)[-1]
  assert last["opacity"] < 0.95 * first["opacity"]


def test_guidance_follows_its_schedule(begun, tmp_path):
  # Steps 0 to 7 are before it begins to move, steps 8 to 15 are not.
  scale = config_lib.Schedule(2.0, 9.0, begin=0.125, finish=0.125)
  guidance = dataclasses.replace(CONFIG.guidance, scale=scale)
  config = dataclasses.replace(CONFIG, guidance=guidance)
  assert_close(fit(tmp_path / "moves", config, calls=1), begun[0])
  fit(tmp_path / "moves", config, calls=1)
  fit(tmp_path / "stays", calls=2)
  moved, stayed = metrics(tmp_path / "moves"), metrics(tmp_path / "stays")
  assert moved[7]["residual"] == pytest.approx(stayed[7]["residual"], rel=1e-3)
  assert moved[8]["residual"] > 1.1 * stayed[8]["residual"]


def test_a_step_that_is_not_finite_is_skipped_and_counted(begun, tmp_path):
  fit(tmp_path, calls=1)
  after = fit(tmp_path, calls=1, bad=(790, 870))  # Steps 8 to 12.
  assert (after.step, after.skipped) == (16, 5)
  records = metrics(tmp_path)
  skipped = [record["skipped"] for record in records]
  assert skipped == [0.0] * 8 + [1.0] * 5 + [0.0] * 3
  assert records[8]["residual"] is None and records[13]["residual"] < 1
  # The parameters went on from where they were.
  assert after.opt_state.count == begun[0].opt_state.count + 3


def test_a_run_of_bad_steps_ends_and_keeps_the_scene(begun, tmp_path):
  with pytest.raises(
      FloatingPointError,
      match="latent's gradient is not finite at step 8, nor .* next 19 steps",
  ):
    fit(tmp_path, bad=(0, 870))
  with workdir.open_for(run_of(CONFIG), tmp_path) as store:
    after = train.restore(run_of(CONFIG), store)
  assert (after.step, after.skipped) == (32, 24)
  for name in ("params", "ema", "opt_state"):
    assert_equal(getattr(after, name), getattr(begun[0], name))


class FakePrograms:
  """Stands for train._program; its steps only count."""

  def __init__(self):
    self.calls = []
    self.keys = []

  def __call__(self, config, model, where, phase):
    del model

    def program(states, prompt, shared):
      del prompt
      self.calls.append(
          (int(shared.first), int(shared.count), phase.with_normals)
      )
      self.keys.append(np.asarray(shared.key).tolist())
      shape = (where.devices, 1, config.train.steps_per_dispatch)
      numbers = step.Numbers(*(np.zeros(shape) for _ in step.Numbers._fields))
      numbers = numbers._replace(culprit=np.full(shape, -1))
      states = states._replace(step=states.step + shared.count)
      return states, parallel.shard(
          jax.tree.map(lambda leaf: leaf[0], numbers), where
      )

    return program


def test_the_loop_keeps_its_appointments(tmp_path, monkeypatch, caplog):
  config = dataclasses.replace(
      CONFIG,
      shading=config_lib.ShadingConfig(albedo_until=0.1),
      train=dataclasses.replace(
          CONFIG.train, preview_every=30, checkpoint_every=25
      ),
  )
  programs, previews = FakePrograms(), []
  monkeypatch.setattr(train, "_program", programs)
  monkeypatch.setattr(
      train.sheet, "write_preview", lambda *words: previews.append(words)
  )
  state = fit(tmp_path, config)
  assert state.step == 60
  assert programs.calls == [
      (0, 6, False), (6, 8, True), (14, 8, True), (22, 3, True),
      (25, 5, True), (30, 8, True), (38, 8, True), (46, 4, True),
      (50, 8, True), (58, 2, True),
  ]
  found = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
  assert found == ["00000050", "00000060"]
  assert [title for _, _, title in previews] == [
      "toy 0, step 30", "toy 0, step 60"
  ]
  assert previews[0][0] == tmp_path / "progress.png"
  # The fake numbers are zero: no opacity.
  assert "toy 0: the scene is empty after 30 steps" in caplog.text


def test_a_seed_decides_how_a_run_begins_and_goes_on(tmp_path, monkeypatch):
  programs = FakePrograms()
  monkeypatch.setattr(train, "_program", programs)
  states = [
      fit(tmp_path / f"{i}", calls=1, seed=seed)
      for i, seed in enumerate((0, 1, 0))
  ]
  kernels = [state.params["network"]["Dense_0"]["kernel"] for state in states]
  assert (kernels[0] != kernels[1]).mean() > 0.9
  assert programs.keys[0] != programs.keys[1]
  np.testing.assert_array_equal(kernels[0], kernels[2])
  assert programs.keys[0] == programs.keys[2]


class Writer(World):
  """A World that also embeds text: a token is its own embedding."""

  def latent_shape(self, height, width):
    if height % 4:
      raise ValueError(f"Image is {height}x{width}.")

  def encode_text(self, params, token):
    return params["text_encoder"] * token[..., None].astype(jnp.float32)

  def distillation_params(self, params, with_decoder):
    return {"unet": params["unet"], "decoder": with_decoder}


def test_prompts_are_embedded_and_the_text_tower_is_left_behind():
  words = CONFIG.prompt
  pipeline = diffusion_model.StableDiffusion(
      Writer(),
      {"text_encoder": jnp.float32(0.5), "unet": "unet"},
      SCHEDULE,
      lambda texts: np.array([[len(text)] * 3 for text in texts]),
  )
  known = train.prepare(run_of(CONFIG, 2), pipeline)
  assert known.params == {"unet": "unet", "decoder": False}
  assert known.prompt.views.shape == (2, len(words.views), 3, 1)
  assert known.prompt.overhead.shape == known.prompt.empty.shape == (2, 3, 1)
  np.testing.assert_array_equal(known.prompt.empty, 0)
  for i, (_, view) in enumerate(words.views):
    length = len(f"toy 0, {view}")
    np.testing.assert_array_equal(known.prompt.views[:, i], 0.5 * length)

  guidance = dataclasses.replace(CONFIG.guidance, residual="image")
  config = dataclasses.replace(CONFIG, guidance=guidance)
  assert train.prepare(run_of(config), pipeline).params["decoder"]

  for name, changes, message in (
      ("guidance", {"image_size": 6}, "Image is 6x6"),
      ("field", {"kind": "voxels"}, "kind is 'voxels', want one of"),
      ("shading", {"light": "candle"}, "light is 'candle', want one of"),
      ("camera", {"distance_unit": "m"}, "distance_unit is 'm', want one of"),
  ):
    part = dataclasses.replace(vars(CONFIG)[name], **changes)
    config = dataclasses.replace(CONFIG, **{name: part})
    with pytest.raises(ValueError, match=message):
      train.prepare(run_of(config), pipeline)


@pytest.mark.slow
def test_lit_views_teach_too(tmp_path):
  config = dataclasses.replace(
      CONFIG,
      shading=config_lib.ShadingConfig(
          shaded_probability=1.0,
          albedo_until=0.5,
          textureless_probability=0.0,
          ambient=(0.0, 0.0),
      ),
      train=dataclasses.replace(CONFIG.train, steps=4, preview_every=4),
  )
  state = fit(tmp_path, config)
  assert (state.step, state.skipped) == (4, 0)
  # Where no light falls the ball is black, which no one expects.
  records = metrics(tmp_path)
  assert records[2]["residual"] > 1.05 * records[1]["residual"]
  assert (tmp_path / "progress.png").exists()


@pytest.mark.parametrize(
    "start, count",
    [(0, 6), (6, 20), (26, 14), (40, 20), (80, 10), (110, 10), (595, 5)],
)
def test_calls_end_where_the_host_or_the_program_changes(start, count):
  settings = config_lib.TrainConfig(
      steps=600, steps_per_dispatch=20, checkpoint_every=90, preview_every=40
  )
  phases = [
      views.Phase(with_normals=i >= 6, as_latents=False) for i in range(600)
  ]
  assert train._count(settings, phases, start) == count
