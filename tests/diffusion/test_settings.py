"""Model configs: what is read, and what is refused by name."""

import dataclasses
import math

import jax
import pytest

from dreamjax.diffusion import clip
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import settings
from dreamjax.diffusion import unet
from dreamjax.diffusion import vae

CLIP = {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"]}


@dataclasses.dataclass(frozen=True)
class Shape:
  width: int = 1
  rate: float = 0.5
  sides: tuple[int, ...] = ()
  heads: int | tuple[int, ...] = 1


def read(**values):
  return settings.read("a.json", values, Shape, {"mode": ("plain",)})


def test_fields_are_taken_and_lists_become_hashable():
  shape = read(width=3, rate=1, sides=[1, 2], heads=[4, 5])
  assert shape == Shape(3, 1, (1, 2), (4, 5))
  hash(shape)


def test_notes_nulls_and_neutral_values_change_nothing():
  assert read(_version="1", other=None, mode="plain") == Shape()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"mode": "odd"}, "a.json: mode is 'odd', want 'plain'"),
        ({"extra": 3}, "a.json: extra is 3; this feature is not supported"),
        ({"width": "3"}, "a.json: width is '3', want int"),
        ({"sides": 3}, "a.json: sides is 3, want tuple"),
    ],
)
def test_everything_else_is_refused_by_name(values, message):
  with pytest.raises(ValueError, match=message):
    read(**values)


@pytest.mark.parametrize(
    "field, value",
    [
        ("mid_block_type", "UNetMidBlock2D"),
        ("down_block_types", ["AttnDownBlock2D"] * 4),
        ("class_embed_type", "timestep"),
        ("addition_embed_type", "text_time"),
        ("num_attention_heads", 8),
        ("resnet_time_scale_shift", "scale_shift"),
        ("transformer_layers_per_block", [1, 2, 10]),
        ("block_out_channels", [32, 64]),
        ("attention_head_dim", 7),
        ("norm_num_groups", 7),
        ("time_cond_proj_dim", 256),
    ],
)
def test_an_unknown_unet_is_refused_by_name(field, value):
  name = {
      "block_out_channels": "down_block_types has 4 entries",
      "attention_head_dim": "7 heads",
      "norm_num_groups": "7 norm groups",
  }.get(field, field)
  with pytest.raises(ValueError, match=name):
    unet.read_config({field: value})


@pytest.mark.parametrize(
    "field, value",
    [
        ("down_block_types", ["AttnDownEncoderBlock2D"]),
        ("shift_factor", 0.1),
        ("use_quant_conv", False),
        ("latents_mean", [0.0]),
        ("norm_num_groups", 7),
    ],
)
def test_an_unknown_autoencoder_is_refused_by_name(field, value):
  name = "7 norm groups" if field == "norm_num_groups" else field
  with pytest.raises(ValueError, match=name):
    vae.read_config({field: value})


@pytest.mark.parametrize(
    "field, value",
    [
        ("model_type", "t5"),
        ("architectures", ["CLIPTextModelWithProjection"]),
        ("hidden_act", "relu"),
        ("num_attention_heads", 7),
    ],
)
def test_an_unknown_text_tower_is_refused_by_name(field, value):
  name = "7 heads" if field == "num_attention_heads" else field
  with pytest.raises(ValueError, match=name):
    clip.read_config(CLIP | {field: value})


def test_keys_that_transformers_adds_to_a_text_tower_are_skipped():
  config = clip.read_config(CLIP | {"torch_dtype": "float32", "top_k": 50})
  assert config == clip.CLIPConfig()


# As the published folders write them, down to the keys of the day.
UNET_1_5 = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
UNET_2_1 = UNET_1_5 | {
    "_name_or_path": "/a/folder",
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "dual_cross_attention": False,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "sample_size": 96,
    "upcast_attention": True,
    "use_linear_projection": True,
}
VAE_1_5 = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TEXT_2_1 = {
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "pad_token_id": 1,
    "projection_dim": 512,
    "torch_dtype": "float32",
    "transformers_version": "4.25.0.dev0",
    "vocab_size": 49408,
}


def test_the_configs_of_stable_diffusion_are_read():
  assert unet.read_config(UNET_1_5).heads == (8, 8, 8, 8)
  second = unet.read_config(UNET_2_1)
  assert second.heads == (5, 10, 20, 20)
  assert second.use_linear_projection
  assert vae.read_config(VAE_1_5).factor == 8
  assert clip.read_config(TEXT_2_1).num_hidden_layers == 23


@pytest.mark.parametrize(
    "unet_values, width, parameters",
    [(UNET_1_5, 768, 859_520_964), (UNET_2_1, 1024, 865_910_724)],
    ids=["1.5", "2.1"],
)
def test_the_unets_have_as_many_parameters_as_published(
    unet_values, width, parameters
):
  model = model_lib.Model(
      clip.CLIPConfig(hidden_size=width),
      vae.read_config(VAE_1_5),
      unet.read_config(unet_values),
  )
  count = lambda tree: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
  shapes = model.shapes()
  assert count(shapes["unet"]) == parameters
  assert count(shapes["vae"]) == 83_653_863
  encoder = count(shapes["vae"]["encoder"])
  assert encoder + count(shapes["vae"]["quant_conv"]) == 34_163_664
