"""A tiny Stable Diffusion whose parameters no compiled initialiser made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax.diffusion import clip
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import schedule
from dreamjax.diffusion import text
from dreamjax.diffusion import unet
from dreamjax.diffusion import vae
from dreamjax.diffusion import weights

VOCABULARY = {
    token: index
    for index, token in enumerate((
        "<|startoftext|>", "<|endoftext|>", "a</w>", ",</w>", "m", "u", "g</w>",
        "r", "e", "d</w>", "mu", "mug</w>", "re", "red</w>",
    ))
}
MERGES = (("m", "u"), ("mu", "g</w>"), ("r", "e"), ("re", "d</w>"))

MODEL = model_lib.Model(
    clip.CLIPConfig(
        vocab_size=16,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
    ),
    vae.VAEConfig(
        sample_size=16, block_out_channels=(16, 32), norm_num_groups=8
    ),
    unet.UNetConfig(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        attention_head_dim=(1, 2),
        cross_attention_dim=32,
        use_linear_projection=True,
        norm_num_groups=8,
    ),
)


def random_params(shapes):
  """Weights of unit gain, norms near one, so that signals keep their size."""
  random = np.random.default_rng(0)

  def draw(path, shape):
    fan_in = np.prod(shape.shape[:-1]) if len(shape.shape) > 1 else 100.0
    value = random.standard_normal(shape.shape) / np.sqrt(fan_in)
    return jnp.asarray(value + (path[-1].key == "scale"), jnp.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="session")
def make_tokenizer(tmp_path_factory):
  """A function from length to the folder of a tokenizer."""

  def make(length):
    folder = tmp_path_factory.mktemp("tokenizer")
    text.write(folder, VOCABULARY, MERGES, length)
    return folder

  return make


@pytest.fixture(scope="session")
def tokenizer_folder(make_tokenizer):
  return make_tokenizer(8)


@pytest.fixture(scope="session")
def pipeline(tokenizer_folder):
  return model_lib.StableDiffusion(
      MODEL,
      random_params(MODEL.shapes()),
      schedule.make(schedule.ScheduleConfig(prediction_type="v_prediction")),
      text.Tokenizer(tokenizer_folder, 8),
  )


@pytest.fixture
def folder(pipeline, tmp_path):
  """A model folder that the test may damage."""
  weights.save(tmp_path / "model", pipeline)
  return tmp_path / "model"
