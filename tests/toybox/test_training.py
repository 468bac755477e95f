"""Tests of the prior's training: the loop, the batches, the latents."""

import os
import pathlib
import shutil
import subprocess
import sys

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dreamjax import checkpoint
from dreamjax import config_io
from dreamjax import toybox
from dreamjax.diffusion import schedule
from dreamjax.diffusion import tensors
from dreamjax.diffusion import vae
from dreamjax.diffusion import weights
from dreamjax.toybox import autoencoder
from dreamjax.toybox import denoiser
from dreamjax.toybox import pictures
from dreamjax.toybox import prior
from dreamjax.toybox import train
from dreamjax.toybox import training
from dreamjax.toybox import words

RECIPE = config_io.load("toybox")


def learn(folder, steps, stop_after=None, data=3.0, devices=1):
  """Fits a number to noisy data; a stop is an exception after a checkpoint."""

  def loss(params, data, key, rows):
    return jnp.mean((params - data - random.normal(key, (8,))[rows]) ** 2)

  update = training.Update(
      loss,
      8,
      optax.adam(training.rate(0.1, 60), b2=0.9),
      ema=0.9,
  )
  folder.mkdir(exist_ok=True)

  def on_save(done, mean):
    del mean
    if done == stop_after:
      raise KeyboardInterrupt

  return training.run(
      update,
      training.init(update, jnp.float32(0.0)),
      jnp.float32(data),
      store=checkpoint.Store(folder / "store", {}, keep=2),
      log=folder / "log.jsonl",
      steps=steps,
      seed=1,
      save_every=20,
      on_save=on_save,
      devices=devices,
  )


def small_training(network):
  """(data, parameters, update) of a network on random pictures."""
  generator = np.random.default_rng(0)
  params = jax.jit(prior.MODEL.init)(random.key(0))
  if network == "vae":
    layers = generator.integers(0, 256, (20, 64, 64, 5), np.uint8)
    return layers, params["vae"], autoencoder.make_update(
        prior.MODEL.vae, RECIPE.background, 10
    )
  # A zero output would hide what went in.
  params["unet"]["conv_out"]["kernel"] += 0.1
  data = denoiser.Data(
      latent=generator.standard_normal((20, 16, 16, 4)).astype(np.float16),
      kind=np.arange(20, dtype=np.int32) % 12,
      color=np.arange(20, dtype=np.int32) % 8,
      azimuth=np.linspace(0, 6, 20, dtype=np.float32),
      elevation=np.linspace(0, 1.5, 20, dtype=np.float32),
      token=generator.integers(
          0, 90, (len(pictures.captions()), prior.LENGTH), np.int32
      ),
  )
  return data, params, denoiser.make_update(
      prior.MODEL, schedule.make(prior.SCHEDULE), RECIPE.prompt, 10
  )


def test_training_finds_the_answer_and_goes_on_bit_for_bit(tmp_path):
  whole = learn(tmp_path / "whole", 60)
  assert abs(whole - 3.0) < 0.7
  with pytest.raises(KeyboardInterrupt):
    learn(tmp_path / "parts", 60, stop_after=20)
  assert learn(tmp_path / "parts", 60) == whole


def test_devices_share_a_batch_and_find_the_same(tmp_path):
  alone = learn(tmp_path / "1", 60)
  for devices in (2, 8):
    shared = learn(tmp_path / str(devices), 60, devices=devices)
    assert shared == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("network", ("unet", "vae"))
def test_rows_of_a_batch_add_up_to_its_loss(network):
  data, params, update = small_training(network)
  loss = jax.jit(update.loss)
  rows = np.arange(update.batch, dtype=np.int32)
  key = random.key(5)
  parts = [loss(params, data, key, part) for part in rows.reshape(2, -1)]
  assert parts[0] != parts[1]
  np.testing.assert_allclose(
      np.mean(parts), loss(params, data, key, rows), rtol=1e-5
  )


def test_loss_that_is_not_finite_ends_the_training(tmp_path):
  with pytest.raises(FloatingPointError, match="not finite"):
    learn(tmp_path / "bad", 60, data=np.nan)


def test_folder_of_another_training_is_refused(tmp_path):
  record = {"seed": 0, "config": {"camera": {"fov": [38, 42]}}}
  train.claim(tmp_path, record)
  train.claim(tmp_path, record)
  before = (tmp_path / "training.json").read_bytes()
  with pytest.raises(checkpoint.Refused, match="seed: 0 there, 1 now"):
    train.claim(tmp_path, record | {"seed": 1})
  assert (tmp_path / "training.json").read_bytes() == before


def test_finished_prior_is_where_a_training_can_start(tmp_path):
  pipeline = weights.load(toybox.WEIGHTS)
  start = train.initial(toybox.WEIGHTS, 0)
  jax.tree.map(np.testing.assert_array_equal, start, pipeline.params)
  other = tmp_path / "other"
  shutil.copytree(toybox.WEIGHTS, other)
  config = other / "unet" / "config.json"
  heads = '"attention_head_dim": '
  config.write_text(config.read_text().replace(f"{heads}4", f"{heads}8"))
  with pytest.raises(tensors.WeightsError, match="toybox's shape"):
    train.initial(other, 0)


@pytest.mark.slow
def test_training_goes_on_from_a_finished_prior(tmp_path):
  def run(*arguments):
    return subprocess.run(
        [
            sys.executable, "-m", "dreamjax.toybox.train",
            f"--workdir={tmp_path}", "--pictures=16", "--unet_steps=2",
            *arguments,
        ],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )

  done = run(f"--start_from={toybox.WEIGHTS}")
  assert done.returncode == 0, done.stderr
  old, new = weights.load(toybox.WEIGHTS), weights.load(tmp_path / "weights")
  jax.tree.map(
      np.testing.assert_array_equal, old.params["vae"], new.params["vae"]
  )
  kernel = lambda pipeline: pipeline.params["unet"]["conv_out"]["kernel"]
  assert 0 < np.abs(kernel(new) - kernel(old)).max() < 1e-2
  refused = run()
  assert refused.returncode == 1
  assert "start_from" in refused.stderr


def test_times_are_stratified_and_rarely_pure_noise():
  time = np.asarray(denoiser.sample_time(random.key(0), 1000, 1000))
  assert time.min() >= 0 and time.max() < 1000
  assert (time >= 750).mean() == pytest.approx(0.15, abs=0.01)
  low = np.sort(time[time < 750])
  np.testing.assert_allclose(low, np.linspace(0, 750, len(low)), atol=3)


def test_captions_leave_words_out_at_their_rates():
  texts = pictures.captions()
  count = 20_000
  data = denoiser.Data(
      latent=jnp.zeros((1, 1)),
      kind=jnp.zeros(1, jnp.int32),
      color=jnp.zeros(1, jnp.int32),
      azimuth=jnp.full(1, np.pi),
      elevation=jnp.full(1, np.pi / 4),
      token=jnp.zeros((len(texts), 16), jnp.int32),
  )
  index, shares = denoiser.sample_captions(
      random.key(0), data, jnp.zeros(count, jnp.int32), RECIPE.prompt
  )
  np.testing.assert_allclose(
      shares, np.tile([0.5, 0.0, 0.5], (count, 1)), atol=1e-6
  )
  chosen = [texts[i] for i in index[:, 0]]
  above = [texts[i] for i in index[:, 2]]
  assert [text.replace("back", "overhead") for text in chosen] == above
  share = lambda text: chosen.count(text) / count
  assert share("") == pytest.approx(0.10, abs=0.01)
  assert share("a red mug, back view") == pytest.approx(
      0.9 * 0.92 * 0.88, abs=0.015
  )
  assert share("a mug, back view") == pytest.approx(
      0.9 * 0.08 * 0.88, abs=0.01
  )
  assert share("a red mug") == pytest.approx(0.9 * 0.92 * 0.12, abs=0.01)
  assert len(words.KINDS) == 12


def test_whitening_changes_the_latents_and_not_the_pictures():
  config = vae.VAEConfig(
      sample_size=16, block_out_channels=(8, 8, 8), norm_num_groups=4,
      mid_block_add_attention=False, scaling_factor=1.0,
  )
  network = vae.AutoencoderKL(config)
  image = random.uniform(random.key(1), (8, 16, 16, 3)) * 2 - 1
  params = jax.jit(network.init)(random.key(0), image)["params"]
  encode = jax.jit(
      lambda params: network.apply({"params": params}, image, method="encode")
  )
  latent, spread = encode(params)
  white = autoencoder.whiten(params, np.asarray(latent).reshape(-1, 4))
  new, same = encode(white)
  flat = np.asarray(new).reshape(-1, 4)
  np.testing.assert_allclose(flat.mean(0), 0, atol=1e-3)
  np.testing.assert_allclose(np.cov(flat.T), np.eye(4), atol=1e-3)
  np.testing.assert_array_equal(spread, same)
  decode = jax.jit(lambda params, latent: network.apply(
      {"params": params}, latent, method="decode"
  ))
  np.testing.assert_allclose(
      decode(white, new), decode(params, latent), atol=1e-4
  )
