"""Tests of the prior's training: the loop, the batches, the latents."""

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dreamjax import checkpoint
from dreamjax.diffusion import vae
from dreamjax.toybox import autoencoder
from dreamjax.toybox import denoiser
from dreamjax.toybox import pictures
from dreamjax.toybox import train
from dreamjax.toybox import training
from dreamjax.toybox import words


def learn(folder, steps, stop_after=None, data=3.0):
  """Fits a number to noisy data; a stop is an exception after a checkpoint."""
  update = training.Update(
      lambda params, data, key: (params - data - random.normal(key)) ** 2,
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
  )


def test_training_finds_the_answer_and_goes_on_bit_for_bit(tmp_path):
  whole = learn(tmp_path / "whole", 60)
  assert abs(whole - 3.0) < 0.7
  with pytest.raises(KeyboardInterrupt):
    learn(tmp_path / "parts", 60, stop_after=20)
  assert learn(tmp_path / "parts", 60) == whole


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
      view=jnp.full(1, 4, jnp.int32),
      token=jnp.zeros((len(texts), 16), jnp.int32),
  )
  index = np.asarray(denoiser.sample_captions(
      random.key(0), data, jnp.zeros(count, jnp.int32)
  ))
  chosen = [texts[i] for i in index]
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
