"""What we are compared with: PyTorch's Stable Diffusion, with random weights.

A shape is (text tower, autoencoder, UNet, scheduler), settings of diffusers'
and transformers' classes. Nothing here imports PyTorch before it is called:
the tests that need it are listed where it is not installed.
"""

import numpy as np

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}

CROSS, PLAIN = "CrossAttn{}Block2D", "{}Block2D"


def unet_config(blocks, **fields):
  """Settings of a UNet whose way up mirrors its way down."""
  return fields | {
      "down_block_types": [block.format("Down") for block in blocks],
      "up_block_types": [block.format("Up") for block in blocks[::-1]],
  }


def vae_config(*channels, **fields):
  """Settings of an autoencoder of so many channels, level by level."""
  return fields | {
      "block_out_channels": channels,
      "down_block_types": ["DownEncoderBlock2D"] * len(channels),
      "up_block_types": ["UpDecoderBlock2D"] * len(channels),
  }


SMALL_VAE = vae_config(32, 64, layers_per_block=2, sample_size=32)
SMALL_TEXT = {
    "vocab_size": 16,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 8,
}
SMALL_UNET = {
    "sample_size": 16,
    "block_out_channels": (64, 128, 128),
    "cross_attention_dim": 48,
}
BLOCKS = (CROSS, CROSS, PLAIN)

SMALL = {
    "1.x": (
        SMALL_TEXT | {"hidden_act": "quick_gelu"},
        SMALL_VAE,
        unet_config(BLOCKS, attention_head_dim=8, **SMALL_UNET),
        {},
    ),
    "2.x": (
        SMALL_TEXT | {"hidden_act": "gelu"},
        SMALL_VAE,
        unet_config(
            BLOCKS,
            attention_head_dim=(1, 2, 2),
            use_linear_projection=True,
            **SMALL_UNET,
        ),
        {},
    ),
    "2.x, velocity": (
        SMALL_TEXT | {"hidden_act": "gelu"},
        SMALL_VAE | {"mid_block_add_attention": False},
        unet_config(
            BLOCKS,
            attention_head_dim=(1, 2, 2),
            use_linear_projection=True,
            layers_per_block=1,
            upcast_attention=True,
            **SMALL_UNET,
        ),
        {"prediction_type": "v_prediction"},
    ),
}

FULL_VAE = vae_config(
    128, 256, 512, 512, layers_per_block=2, sample_size=512
)
FULL_BLOCKS = (CROSS, CROSS, CROSS, PLAIN)
FULL_CHANNELS = (320, 640, 1280, 1280)

FULL_1 = (
    {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
    },
    FULL_VAE,
    unet_config(
        FULL_BLOCKS,
        sample_size=64,
        block_out_channels=FULL_CHANNELS,
        attention_head_dim=8,
        cross_attention_dim=768,
    ),
    {},
)

FULL_2_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
FULL_2_UNET = unet_config(
    FULL_BLOCKS,
    block_out_channels=FULL_CHANNELS,
    attention_head_dim=(5, 10, 20, 20),
    cross_attention_dim=1024,
    use_linear_projection=True,
)
FULL_2_BASE = (FULL_2_TEXT, FULL_VAE, FULL_2_UNET | {"sample_size": 64}, {})
FULL_2_VELOCITY = (
    FULL_2_TEXT,
    FULL_VAE,
    FULL_2_UNET | {"sample_size": 96},
    {"prediction_type": "v_prediction"},
)

# 2.x-base with a fifth of the UNet's channels, a quarter of the autoencoder's
# and half of its side, for machines without a GPU.
REDUCED_2_BASE = (
    SMALL_TEXT | {"hidden_size": 256, "hidden_act": "gelu"},
    vae_config(32, 64, 128, 128, layers_per_block=2, sample_size=256),
    unet_config(
        FULL_BLOCKS,
        sample_size=32,
        block_out_channels=(64, 128, 256, 256),
        attention_head_dim=(1, 2, 4, 4),
        cross_attention_dim=256,
        use_linear_projection=True,
    ),
    {},
)


def to_torch(images):
  """NHWC numpy as NCHW torch."""
  import torch

  return torch.from_numpy(np.moveaxis(images, -1, 1).copy())


def randomise(module):
  """Moves norms and biases too: PyTorch starts them at one and zero."""
  import torch

  with torch.no_grad():
    for parameter in module.parameters():
      if parameter.ndim == 1:
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
  return module.eval()


def make_pipeline(shape, tokenizer_folder):
  """A StableDiffusionPipeline of a shape; its tokenizer is that folder's."""
  import diffusers
  import torch
  import transformers

  text_config, vae_settings, unet_settings, scheduler = shape
  torch.manual_seed(0)
  text_encoder = transformers.CLIPTextModel(
      transformers.CLIPTextConfig(bos_token_id=0, eos_token_id=1, **text_config)
  )
  return diffusers.StableDiffusionPipeline(
      randomise(diffusers.AutoencoderKL(**vae_settings)),
      randomise(text_encoder),
      transformers.CLIPTokenizer.from_pretrained(tokenizer_folder),
      randomise(diffusers.UNet2DConditionModel(**unet_settings)),
      diffusers.DDIMScheduler(**SCHEDULER | scheduler),
      safety_checker=None,
      feature_extractor=None,
      requires_safety_checker=False,
  )
