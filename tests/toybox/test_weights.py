"""Tests of the prior that is shipped: it opens, and it knows its toys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import toybox
from dreamjax.diffusion import sample
from dreamjax.diffusion import weights
from dreamjax.evaluation import prior
from dreamjax.toybox import words


@pytest.fixture(scope="module")
def pipeline():
  return weights.load(toybox.WEIGHTS)


def test_package_stays_small():
  size = sum(path.stat().st_size for path in toybox.WEIGHTS.rglob("*"))
  assert size <= 25e6


def test_every_word_is_one_token(pipeline):
  for word in words.VOCABULARY:
    row = pipeline.tokenizer([word])[0]
    assert row[2] == pipeline.tokenizer.end, word


def test_prior_draws_what_the_caption_says(pipeline):
  """Kind, colour and front or back, by the nearest true picture."""
  asked = [
      ("mug", "red", "front view"), ("mug", "red", "back view"),
      ("house", "yellow", "front view"), ("head", "orange", "back view"),
      ("robot", "green", "front view"), ("chair", "blue", "back view"),
      ("tree", "white", "back view"),
  ]
  drawn = sample.draw(
      pipeline, [words.caption(*toy) for toy in asked], steps=20, scale=4.0
  )
  known = prior.gallery()
  kind, color, view = zip(*(prior.classify(image, known) for image in drawn))
  want = zip(*asked)
  assert [words.KINDS[i] for i in kind] == list(next(want))
  assert [list(words.COLORS)[i] for i in color] == list(next(want))
  # A tree looks alike from all sides. One bin away is the right side still;
  # docs/toybox.md says how often this prior misses it.
  turn = [i - words.VIEWS.index(v) for i, v in zip(view, next(want))][:-1]
  right = [abs((step + 4) % 8 - 4) <= 1 for step in turn]
  assert sum(right) >= 5, turn


@pytest.mark.parity
def test_diffusers_opens_the_folder_and_draws_the_same(pipeline):
  import diffusers
  import torch

  pipe = diffusers.StableDiffusionPipeline.from_pretrained(
      toybox.WEIGHTS, torch_dtype=torch.float32, safety_checker=None
  )
  pipe.set_progress_bar_config(disable=True)
  text = "a red mug, front view"
  noise = np.random.default_rng(0).standard_normal((1, 4, 16, 16), np.float32)
  want = pipe(
      text, latents=torch.tensor(noise), num_inference_steps=20,
      guidance_scale=4.0, output_type="np", height=64, width=64,
  ).images
  model, params = pipeline.model, pipeline.params
  embedding = jax.jit(model.encode_text)(params, pipeline.tokenizer([text, ""]))
  latent = sample.latents(
      model, params, pipeline.schedule, embedding[:1], embedding[1:],
      jnp.asarray(noise.transpose(0, 2, 3, 1)), 4.0, steps=20,
  )
  got = np.clip(jax.jit(model.decode_image)(params, latent), 0, 1)
  np.testing.assert_allclose(got, want, atol=2e-3)
