"""Score distillation against denoisers whose answers are known."""

import dataclasses
import functools

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import cameras
from dreamjax import config as config_lib
from dreamjax import prompts
from dreamjax import schedules
from dreamjax.diffusion import oracle as oracle_lib
from dreamjax.diffusion import schedule as schedule_lib
from dreamjax.guidance import draws
from dreamjax.guidance import sds

KEY = random.key(3)
SCHEDULE = schedule_lib.make(schedule_lib.ScheduleConfig())
SHAPE = (4, 4, 2)
CLEAN, TEXT, EMPTY = 1.5 * random.normal(random.key(0), (3, *SHAPE))
WORLD = oracle_lib.Oracle(
    jnp.stack([TEXT, EMPTY]), SCHEDULE.alphas_cumprod, jnp.float32(1.0)
)
# Log probabilities: the text knows the first vector, no text the second.
KNOWS = jnp.array([[[0.0, -jnp.inf]], [[-jnp.inf, 0.0]]])


def one_time(**changes):
  """A config whose only timestep is the progress; fewer programs to compile."""
  t = config_lib.Schedule(0.0, 1.0)
  return config_lib.GuidanceConfig(
      **({"t_min": t, "t_max": t, "scale": config_lib.constant(1.0)} | changes)
  )


@functools.partial(jax.jit, static_argnames=("answer", "config"))
def distil(
    world, answer, latent, indices, texts, progress, schedule, config
):
  key_t, key_noise = random.split(KEY)
  still = jnp.zeros(indices.shape)
  return sds.gradient(
      draws.timesteps(key_t, indices, progress, schedule, config),
      draws.noise(
          key_noise,
          KEY,
          indices,
          cameras.orbit(still, still, 1.0, 1.0),
          latent.shape[1:],
          progress,
          config,
      ),
      schedules.value(config.scale, progress),
      latent,
      texts,
      functools.partial(answer, world),
      schedule,
      config,
  )


def gradient(config, t=0.5, views=2, **changes):
  """sds.gradient of `CLEAN` in every view, times its size; diagnostics."""
  result, _, diagnostics = everything(config, t, views, **changes)
  return result, diagnostics


def everything(config, t=0.5, views=2, **changes):
  """As `gradient`, with the strength in between."""
  chosen = {
      "world": WORLD,
      "answer": oracle_lib.denoise,
      "latent": jnp.broadcast_to(CLEAN, (views, *SHAPE)),
      "indices": jnp.arange(views),
      "context": jnp.broadcast_to(KNOWS[0], (views, 1, 2)),
      "empty": KNOWS[1],
      "opposed": jnp.zeros((0, views, 1, 2)),
      "weight": jnp.zeros((0, views)),
      "schedule": SCHEDULE,
  } | changes
  result, strength, diagnostics = distil(
      chosen["world"],
      chosen["answer"],
      chosen["latent"],
      chosen["indices"],
      prompts.Texts(**{name: chosen[name] for name in prompts.Texts._fields}),
      jnp.float32(t),
      schedule=chosen["schedule"],
      config=config,
  )
  assert result.shape == chosen["latent"].shape
  return result * result.size, strength, diagnostics


def alpha_sigma(t):
  alpha, sigma = schedule_lib.alpha_sigma(SCHEDULE, jnp.int32(t))
  return float(alpha), float(sigma)


@pytest.mark.parametrize(
    "weighting, weight",
    [
        ("sds", lambda alpha, sigma: 1 - alpha**2),
        ("uniform", lambda alpha, sigma: 1.0),
        ("fantasia3d", lambda alpha, sigma: alpha * (1 - alpha**2)),
        ("x0", lambda alpha, sigma: sigma / alpha),
    ],
)
def test_a_sure_denoiser_pulls_straight_at_its_image(weighting, weight):
  for t in (50, 500, 900):
    # e - n = (a / s) (z - x): whatever the noise was, it has gone.
    alpha, sigma = alpha_sigma(t)
    result, _ = gradient(one_time(weighting=weighting), t / 1000)
    want = weight(alpha, sigma) * alpha / sigma * (CLEAN - TEXT)
    for view in result:
      # Noise of a few units cancels: 1e-6 of it, over s.
      np.testing.assert_allclose(view, want, rtol=1e-4, atol=3e-5)


def test_weightings_are_those_of_the_config():
  assert tuple(sds.WEIGHTINGS) == config_lib.WEIGHTINGS


def test_expected_gradient_is_the_slope_of_the_smoothed_log_density():
  # One number z in a world of two: -(s / a) d/dz E log p_t(a z + s n) by
  # quadrature, as E[e] = -s E[d log p_t] and E[n] = 0.
  alpha, sigma = alpha_sigma(600)
  centre = np.array([1.2, -0.8])
  log_weight = np.log([0.3, 0.7])
  clean = 0.4
  noise = np.linspace(-8, 8, 4001)
  density = np.exp(-(noise**2) / 2) / np.sqrt(2 * np.pi)

  def smoothed(z):
    noisy = alpha * z + sigma * noise
    terms = log_weight - (noisy[:, None] - alpha * centre) ** 2 / 2 / sigma**2
    return np.trapezoid(density * np.logaddexp(*terms.T), noise)

  slope = (smoothed(clean + 1e-3) - smoothed(clean - 1e-3)) / 2e-3
  count = 2**15
  context = jnp.asarray(log_weight, jnp.float32).reshape(1, 1, 2)
  result, _ = gradient(
      one_time(noise_samples=count, weighting="uniform"),
      0.6,
      views=1,
      latent=jnp.full((1, 1, 1, 1), clean),
      context=context,
      empty=context[0],
      world=WORLD._replace(
          vectors=jnp.asarray(centre, jnp.float32).reshape(2, 1, 1, 1)
      ),
  )
  # e - n varies by less than 1: five standard errors of the mean.
  np.testing.assert_allclose(
      result[0, 0, 0, 0], -sigma / alpha * slope, atol=5 / np.sqrt(count)
  )


@pytest.mark.parametrize("scale", [0.0, 7.5])
def test_guidance_exaggerates_the_text(scale):
  guidance = one_time(scale=config_lib.constant(scale), weighting="x0")
  result, _ = gradient(guidance)
  target = EMPTY + scale * (TEXT - EMPTY)
  np.testing.assert_allclose(
      result[0], CLEAN - target, rtol=1e-4, atol=1e-4
  )


def test_each_view_follows_its_own_text():
  config = one_time(weighting="x0", noise_samples=2)
  result, _ = gradient(config, context=KNOWS)
  np.testing.assert_allclose(result[0], CLEAN - TEXT, atol=1e-4)
  np.testing.assert_allclose(result[1], CLEAN - EMPTY, atol=1e-4)


def test_each_view_is_kept_off_its_own_texts():
  other = random.normal(random.key(5), SHAPE)
  world = WORLD._replace(vectors=jnp.stack([TEXT, EMPTY, other]))
  text, empty, third = jnp.log(jnp.eye(3))[:, None]
  both = lambda texts: jnp.broadcast_to(texts, (2, 1, 3))
  weight = jnp.array([[0.5, 0.0], [3.0, 0.25]])
  result, _ = gradient(
      one_time(
          weighting="x0", noise_samples=2, scale=config_lib.constant(7.5)
      ),
      world=world,
      context=both(text),
      empty=empty,
      # The second is what there is anyway: it adds nothing, however strong.
      opposed=jnp.stack([both(third), jnp.stack([text, third])]),
      weight=weight,
  )
  along = TEXT - EMPTY
  off = other - EMPTY
  off -= along * jnp.sum(off * along) / jnp.sum(along**2)
  for view, strength in zip(result, (0.5, 0.25)):
    target = EMPTY + 7.5 * (along - strength * off)
    np.testing.assert_allclose(view, CLEAN - target, rtol=1e-3, atol=1e-3)


def test_keeping_off_the_front_finds_the_back_of_a_biased_denoiser():
  # Front, back, and something else, which no text means mostly. "Back view"
  # shows the front more often than the back.
  orthogonal = jax.nn.initializers.orthogonal(6.0)
  images = orthogonal(random.key(8), (3, 32)).reshape(3, *SHAPE)
  context, empty, opposed = jnp.log(
      jnp.array([[0.58, 0.4, 0.02], [0.2, 0.2, 0.6], [0.97, 0.01, 0.02]])
  )[:, None]

  def end(strength):
    latent = (images[:1] + images[1:2]) / 2
    for step in range(60):
      result, _ = gradient(
          one_time(
              weighting="x0",
              noise_samples=16,
              scale=config_lib.constant(3.0),
          ),
          0.9 - step / 100,
          views=1,
          latent=latent,
          indices=jnp.array([step]),
          context=context[None],
          empty=empty,
          opposed=opposed[None, None],
          weight=jnp.full((1, 1), strength),
          world=WORLD._replace(vectors=images, temperature=jnp.float32(10.0)),
      )
      latent = latent - 0.2 * result
    return int(np.argmin([jnp.linalg.norm(latent - one) for one in images]))

  assert (end(0.0), end(2.0)) == (0, 1)


@pytest.mark.parametrize("share, steps", [(0.5, 1), (1.0, 1), (1.0, 3)])
def test_rescale_takes_back_the_spread_of_the_guided_image(share, steps):
  config = one_time(
      scale=config_lib.constant(20.0),
      weighting="x0",
      rescale=share,
      denoise_steps=steps,
  )
  result, _ = gradient(config, 0.7)
  guided = EMPTY + 20.0 * (TEXT - EMPTY)
  ratio = jnp.std(TEXT) / jnp.std(guided)
  target = (share * ratio + 1 - share) * guided
  np.testing.assert_allclose(
      result[0], CLEAN - target, rtol=1e-4, atol=3e-4
  )
  if share == 1.0:
    np.testing.assert_allclose(
        jnp.std(CLEAN - result[0]), jnp.std(TEXT), rtol=1e-4
    )


def test_rescale_looks_at_each_view_alone():
  config = one_time(
      scale=config_lib.constant(20.0), weighting="x0", rescale=1.0
  )
  both, _ = gradient(config, 0.7, context=KNOWS)
  one, _ = gradient(config, 0.7)
  np.testing.assert_allclose(both[0], one[0], rtol=1e-5)


def test_weights_are_capped():
  alpha, sigma = alpha_sigma(980)
  assert sigma / alpha > 12
  config = one_time(weighting="x0", weight_cap=5.0)
  result, _ = gradient(config, 0.98)
  want = 5.0 * alpha / sigma * (CLEAN - TEXT)
  np.testing.assert_allclose(result[0], want, rtol=1e-4, atol=1e-4)
  free, _ = gradient(config, 0.1)
  np.testing.assert_allclose(free[0], CLEAN - TEXT, atol=1e-4)


@pytest.mark.parametrize("share_t", [False, True])
def test_results_do_not_depend_on_who_computes_which_views(share_t):
  world = WORLD._replace(temperature=jnp.float32(50.0))
  config = config_lib.GuidanceConfig(
      scale=config_lib.constant(5.0), noise_samples=2, share_t=share_t
  )
  unsure = jnp.log(jnp.array([[[0.7, 0.3]]]))
  parts = lambda indices: gradient(
      config,
      views=len(indices),
      indices=jnp.array(indices),
      world=world,
      context=jnp.broadcast_to(unsure, (len(indices), 1, 2)),
      empty=jnp.log(jnp.array([[0.4, 0.6]])),
  )[0]
  whole = parts([0, 1, 2, 3])
  for split in ([0, 1], [2, 3]), ([3, 1], [0, 2]):
    for indices in split:
      np.testing.assert_allclose(
          parts(indices), whole[jnp.array(indices)], rtol=1e-4, atol=1e-5
      )
  # Noise differs between views, so these would differ if numbers mixed.
  assert np.abs(whole[0] - whole[1]).max() > 1e-3


def test_all_noises_of_all_views_go_through_the_denoiser_together():
  calls = []

  def denoise(world, noisy, t, context):
    calls.append((noisy.shape[0], t.shape, context.shape))
    return oracle_lib.denoise(world, noisy, t, context)

  gradient(one_time(noise_samples=3), answer=denoise)
  assert calls == [(12, (12,), (12, 1, 2))]


def test_noises_are_averaged():
  config = config_lib.GuidanceConfig(
      scale=config_lib.constant(1.0), noise_samples=4, weighting="uniform"
  )
  result, diagnostics = gradient(config, 0.0)
  key, _ = random.split(KEY)
  t = draws.timesteps(key, jnp.arange(2), 0.0, SCHEDULE, config)
  alpha, sigma = schedule_lib.alpha_sigma(SCHEDULE, t)
  want = jnp.mean(alpha / sigma, axis=0)[:, None, None, None]
  want = want * (CLEAN - TEXT)
  np.testing.assert_allclose(result, want, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(diagnostics["t"], jnp.mean(t), rtol=1e-6)


@pytest.mark.parametrize("rescale", [0.0, 0.6])
def test_velocity_and_noise_say_the_same(rescale):
  config = config_lib.GuidanceConfig(
      scale=config_lib.constant(7.5),
      noise_samples=2,
      rescale=rescale,
      weighting="uniform",
  )
  world = WORLD._replace(temperature=jnp.float32(20.0))
  velocity = dataclasses.replace(
      SCHEDULE,
      config=schedule_lib.ScheduleConfig(prediction_type="v_prediction"),
  )

  def denoise(world, noisy, t, context):
    noise = oracle_lib.denoise(world, noisy, t, context)
    clean = schedule_lib.predict_original(SCHEDULE, noise, noisy, t)
    return schedule_lib.velocity(SCHEDULE, clean, noise, t)

  unsure = {
      "context": jnp.log(jnp.full((2, 1, 2), 0.5)),
      "empty": jnp.log(jnp.array([[0.1, 0.9]])),
  }
  by_noise, one = gradient(config, world=world, **unsure)
  by_velocity, other = gradient(
      config, world=world, answer=denoise, schedule=velocity, **unsure
  )
  np.testing.assert_allclose(by_noise, by_velocity, rtol=1e-3, atol=1e-3)
  for name in one:
    np.testing.assert_allclose(one[name], other[name], rtol=1e-3)


@pytest.mark.parametrize("steps", [1, 3])
def test_diagnostics_of_a_sure_denoiser_are_those_of_the_first_step(steps):
  alpha, sigma = alpha_sigma(400)
  config = one_time(weighting="x0", denoise_steps=steps)
  _, diagnostics = gradient(config, 0.4)
  assert diagnostics["t"] == 400
  np.testing.assert_allclose(
      diagnostics["residual"],
      alpha / sigma * jnp.sqrt(jnp.mean((CLEAN - TEXT) ** 2)),
      rtol=1e-4,
  )
  np.testing.assert_allclose(
      diagnostics["text"],
      jnp.linalg.norm(TEXT - EMPTY) / jnp.linalg.norm(CLEAN - EMPTY),
      rtol=1e-4,
  )


@pytest.mark.parametrize("weighting", ["sds", "x0"])
def test_images_are_pulled_to_what_the_mean_clean_latent_decodes_to(weighting):
  # Two noises at different t, with texts that agree with neither image.
  unsure = jnp.broadcast_to(jnp.log(jnp.array([0.7, 0.3])), (2, 1, 2))
  config = config_lib.GuidanceConfig(
      scale=config_lib.constant(1.0), noise_samples=2, weighting=weighting
  )
  result, strength, _ = everything(config, context=unsure)
  latent = jnp.broadcast_to(CLEAN, (2, *SHAPE))
  image = random.uniform(random.key(9), (2, 6, 6, 3))
  seen = []

  def decode(clean):
    seen.append(clean)
    return jnp.full((2, 6, 6, 3), 0.25)

  pulled = sds.image_gradient(
      image, latent, result / result.size, strength, decode
  )
  want = strength[:, None, None, None] * (image - 0.25) / image.size
  np.testing.assert_allclose(pulled, want, rtol=1e-5)
  np.testing.assert_allclose(
      latent - seen[0],
      result / strength[:, None, None, None],
      rtol=1e-4,
      atol=1e-5,
  )
  if weighting == "x0":
    np.testing.assert_allclose(strength, 1.0, rtol=1e-5)


def test_a_sure_denoiser_decodes_its_image_whatever_the_weights():
  config = config_lib.GuidanceConfig(
      scale=config_lib.constant(1.0), noise_samples=3
  )
  result, strength, _ = everything(config)
  latent = jnp.broadcast_to(CLEAN, (2, *SHAPE))
  pulled = sds.image_gradient(
      jnp.zeros((2, *SHAPE)), latent, result / result.size, strength,
      lambda clean: clean,
  )
  target = -pulled * pulled.size / strength[:, None, None, None]
  for view in target:
    np.testing.assert_allclose(view, TEXT, rtol=1e-3, atol=1e-3)


def test_steps_of_ddim_follow_a_straight_line_to_a_sure_image():
  # Whatever the path, a denoiser that knows one image ends there.
  config = config_lib.GuidanceConfig(
      scale=config_lib.constant(1.0),
      weighting="x0",
      denoise_steps=4,
      noise_samples=2,
  )
  result, _ = gradient(config)
  for view in result:
    np.testing.assert_allclose(view, CLEAN - TEXT, rtol=1e-3, atol=1e-3)


def test_many_steps_decide_where_one_step_hesitates():
  # Two images far apart, equally likely: from nearly pure noise one look sees
  # their mean, and a path ends at one of them.
  doubtful = jnp.zeros((1, 1, 2))
  distance = lambda steps: _distance_to_an_image(
      one_time(weighting="x0", denoise_steps=steps), doubtful
  )
  apart = float(jnp.linalg.norm(TEXT - EMPTY))
  assert distance(1) > 0.1 * apart
  assert distance(16) < 0.02 * apart


def _distance_to_an_image(config, context):
  views = 4
  result, _ = gradient(
      config,
      0.95,
      views=views,
      context=jnp.broadcast_to(context, (views, 1, 2)),
      empty=context[0],
      latent=jnp.zeros((views, *SHAPE)),
  )
  distance = jnp.stack([
      jnp.linalg.norm((-result - image).reshape(views, -1), axis=-1)
      for image in (TEXT, EMPTY)
  ])
  return float(distance.min(0).mean())


def test_every_step_sees_the_times_of_ddim():
  seen = []

  def denoise(world, noisy, t, context):
    jax.debug.callback(lambda t: seen.append(int(t[0])), t)
    return oracle_lib.denoise(world, noisy, t, context)

  result, _ = gradient(one_time(denoise_steps=4), 0.8, answer=denoise)
  jax.block_until_ready(result)
  jax.effects_barrier()
  assert sorted(seen, reverse=True) == [800, 600, 400, 200]
