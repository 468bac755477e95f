"""Model configs: what is read, and what is refused by name."""

import dataclasses

import pytest

from dreamjax.diffusion import clip
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
