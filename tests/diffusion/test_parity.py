"""Our models equal diffusers' and transformers' PyTorch models.

PyTorch makes the weights and writes the folder with its own save_pretrained;
dreamjax opens that folder. Errors are the largest difference over the largest
value; run with -s to see them. docs/parity.md has the last ones.
"""

import gc
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import peers
import pytest

from dreamjax.diffusion import model_folder
from dreamjax.diffusion import sample
from dreamjax.diffusion import weights

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
"""Float32 sums in another order, through some sixty layers."""

TIMES = np.array([1, 500, 981], np.int32)


@pytest.fixture(autouse=True)
def _with_pytorch():
  for name in ("torch", "diffusers", "transformers"):
    pytest.importorskip(name)


def draw_with_diffusers(pipe, noise):
  """A latent for "a red mug" from NHWC noise, 20 steps, scale 7.5."""
  pipe.set_progress_bar_config(disable=True)
  return pipe(
      ["a red mug"],
      num_inference_steps=20,
      guidance_scale=7.5,
      latents=peers.to_torch(noise),
      output_type="latent",
  ).images.numpy()


def draw_with_dreamjax(pipeline, noise):
  model, params, schedule, tokenizer = pipeline
  context = jax.jit(model.encode_text)(params, tokenizer(["a red mug", ""]))
  return sample.latents(
      model, params, schedule, context[:1], context[1:], noise, 7.5, steps=20
  )


class Inputs(NamedTuple):
  """Images f32[1, H, W, 3], noisy latents f32[3, h, w, 4] and more noise."""

  image: np.ndarray
  noisy: np.ndarray
  noise: np.ndarray


def make_inputs(image_side, latent_side, drawn_side):
  random = np.random.default_rng(0)
  normal = lambda *shape: random.standard_normal(shape, np.float32)
  return Inputs(
      random.uniform(size=(1, image_side, image_side, 3)).astype(np.float32),
      normal(3, latent_side, latent_side, 4),
      normal(1, drawn_side, drawn_side, 4),
  )


def reference(pipe, inputs):
  """PyTorch's answers by name."""
  import torch

  with torch.no_grad():
    token = pipe.tokenizer(
        ["a red mug"],
        padding="max_length",
        max_length=pipe.tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    context = pipe.text_encoder(token).last_hidden_state
    image = 2 * peers.to_torch(inputs.image) - 1
    latent = pipe.vae.encode(image).latent_dist.mean
    image = pipe.vae.decode(latent).sample / 2 + 0.5
    output = pipe.unet(
        peers.to_torch(inputs.noisy),
        torch.tensor(TIMES),
        context.expand(len(TIMES), -1, -1),
    ).sample
  return {
      "text tower": context.numpy(),
      "VAE encoder": latent.numpy() * pipe.vae.config.scaling_factor,
      "VAE decoder": image.numpy(),
      "UNet": output.numpy(),
      "DDIM, 20 steps": draw_with_diffusers(pipe, inputs.noise),
  }


def ours(pipeline, inputs):
  """Our answers by the same names."""
  model, params, _, tokenizer = pipeline
  context = jax.jit(model.encode_text)(params, tokenizer(["a red mug"]))
  latent = jax.jit(model.encode_image)(params, inputs.image)
  contexts = jnp.broadcast_to(context, (len(TIMES), *context.shape[1:]))
  return {
      "text tower": context,
      "VAE encoder": latent,
      "VAE decoder": jax.jit(model.decode_image)(params, latent),
      "UNet": jax.jit(model.denoise)(
          params, inputs.noisy, TIMES, contexts
      ),
      "DDIM, 20 steps": draw_with_dreamjax(pipeline, inputs.noise),
  }


def relative_error(got, want):
  """Of an NHWC array against an NCHW one, or of equal layouts."""
  if want.ndim == 4:
    want = want.transpose(0, 2, 3, 1)
  return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


def check(family, tokenizer_folder, folder, inputs):
  pipe = peers.make_pipeline(family, tokenizer_folder)
  pipe.save_pretrained(folder)
  want = reference(pipe, inputs)
  # Two models of full size do not fit a small machine.
  del pipe
  gc.collect()
  pipeline = weights.load(folder)
  shutil.rmtree(folder)  # Gigabytes, which pytest would keep.
  got = ours(pipeline, inputs)
  errors = {name: relative_error(got[name], want[name]) for name in want}
  print(*(f"\n  {name:15s} {error:.1e}" for name, error in errors.items()))
  assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize("family", peers.SMALL)
def test_small_models_equal_pytorch(family, make_tokenizer, tmp_path):
  inputs = make_inputs(32, 16, 16)
  check(peers.SMALL[family], make_tokenizer(8), tmp_path, inputs)


def test_stable_diffusion_1_equals_pytorch_at_full_size(
    make_tokenizer, tmp_path
):
  check(peers.FULL_1, make_tokenizer(77), tmp_path, make_inputs(256, 32, 8))


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [peers.FULL_1, peers.FULL_2_VELOCITY], ids=["1.5", "2.1"]
)
def test_full_size_models_equal_pytorch_at_512_pixels(
    family, make_tokenizer, tmp_path
):
  check(family, make_tokenizer(77), tmp_path, make_inputs(512, 64, 8))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_diffusers_opens_what_we_write_and_draws_the_same(
    dtype, pipeline, tmp_path
):
  import diffusers
  import torch

  model_folder.save(tmp_path, pipeline, dtype)
  pipe = diffusers.StableDiffusionPipeline.from_pretrained(
      tmp_path, dtype=torch.float32
  )
  noise = make_inputs(16, 8, 8).noise
  want = draw_with_diffusers(pipe, noise)
  got = draw_with_dreamjax(weights.load(tmp_path), noise)
  assert relative_error(got, want) <= TOLERANCE
