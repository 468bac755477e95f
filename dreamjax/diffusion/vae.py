"""The autoencoder of Stable Diffusion (Rombach et al. 2022, section 3.1).

The same network as diffusers' AutoencoderKL, shaped by that model's
config.json.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dreamjax.diffusion import layers
from dreamjax.diffusion import settings

EPSILON = 1e-6
"""Of every group norm (diffusers' constant)."""


@dataclasses.dataclass(frozen=True)
class VAEConfig:
  """Shape of an autoencoder; names and defaults are those of diffusers.

  Attributes:
    sample_size: side of the images that it was made for.
    in_channels: channels of the image it reads.
    out_channels: channels of the image it writes.
    latent_channels: channels of the latent.
    block_out_channels: width of each resolution, finest first.
    layers_per_block: residual blocks per resolution of the encoder; the
      decoder has one more.
    norm_num_groups: groups of the group norms.
    mid_block_add_attention: whether the coarsest resolution attends.
    scaling_factor: what a latent is multiplied with for the UNet.
    force_upcast: accepted; it asks PyTorch not to use float16.
  """

  sample_size: int = 32
  in_channels: int = 3
  out_channels: int = 3
  latent_channels: int = 4
  block_out_channels: tuple[int, ...] = (64,)
  layers_per_block: int = 1
  norm_num_groups: int = 32
  mid_block_add_attention: bool = True
  scaling_factor: float = 0.18215
  force_upcast: bool = True

  def __post_init__(self):
    for channels in self.block_out_channels:
      if channels % self.norm_num_groups:
        raise ValueError(
            f"VAEConfig: {channels} channels cannot be split into"
            f" {self.norm_num_groups} norm groups."
        )

  @property
  def factor(self):
    """Pixels per latent pixel, along a side."""
    return 2 ** (len(self.block_out_channels) - 1)


NEUTRAL = {
    "_class_name": ("AutoencoderKL",),
    "act_fn": ("silu", "swish"),
    "use_quant_conv": (True,),
    "use_post_quant_conv": (True,),
}
"""Values of diffusers' other fields that leave this network as it is."""


def read_config(values):
  """VAEConfig of the parsed vae/config.json."""
  values = dict(values)
  levels = len(values.get("block_out_channels", (64,)))
  for name, block in (
      ("down_block_types", "DownEncoderBlock2D"),
      ("up_block_types", "UpDecoderBlock2D"),
  ):
    if values.pop(name, [block]) != [block] * levels:
      raise ValueError(
          f"vae/config.json: {name} must be {levels} times {block!r}, one per"
          " entry of block_out_channels."
      )
  return settings.read("vae/config.json", values, VAEConfig, NEUTRAL)


class AutoencoderKL(nn.Module):
  """Image to latent and back.

  Attributes:
    config: VAEConfig.
    dtype: of the arithmetic.
  """

  config: VAEConfig
  dtype: Any = jnp.float32

  def setup(self):
    latent = self.config.latent_channels
    self.encoder = Encoder(self.config, self.dtype)
    self.decoder = Decoder(self.config, self.dtype)
    self.quant_conv = layers.conv(2 * latent, self.dtype, None, size=1)
    self.post_quant_conv = layers.conv(latent, self.dtype, None, size=1)

  def encode(self, image):
    """Posterior of the latent.

    Args:
      image: [B, H, W, 3] in [-1, 1]; H and W are multiples of
        `config.factor`.
    Returns:
      (mean, log_variance), each [B, H / factor, W / factor, C], before the
      scaling factor.
    Raises:
      ValueError: H or W is not such a multiple.
    """
    factor = self.config.factor
    if image.shape[1] % factor or image.shape[2] % factor:
      raise ValueError(
          f"AutoencoderKL: image is {image.shape[1]}x{image.shape[2]}, want"
          f" sides that are multiples of {factor}."
      )
    moments = self.quant_conv(self.encoder(image.astype(self.dtype)))
    mean, log_variance = jnp.split(moments, 2, -1)
    return mean, jnp.clip(log_variance, -30.0, 20.0)

  def decode(self, latent):
    """Image in about [-1, 1] of a latent without the scaling factor."""
    return self.decoder(self.post_quant_conv(latent.astype(self.dtype)))

  def __call__(self, image):
    """Reconstruction from the posterior mean; initialises all parameters."""
    return self.decode(self.encode(image)[0])


class Encoder(nn.Module):
  """Image to the moments of its latent."""

  config: VAEConfig
  dtype: Any

  @nn.compact
  def __call__(self, x):
    config = self.config
    x = layers.conv(config.block_out_channels[0], self.dtype, "conv_in")(x)
    for i, channels in enumerate(config.block_out_channels):
      for j in range(config.layers_per_block):
        x = _resnet(self, channels, f"down_blocks.{i}.resnets.{j}")(x)
      if i < len(config.block_out_channels) - 1:
        name = f"down_blocks.{i}.downsamplers.0.conv"
        # One pixel more at the bottom and right, none at the top and left.
        padding = ((0, 1), (0, 1))
        x = layers.conv(
            channels, self.dtype, name, stride=2, padding=padding
        )(x)
    x = MidBlock(config, self.dtype, name="mid_block")(x)
    return _head(self, x, 2 * config.latent_channels)


class Decoder(nn.Module):
  """Latent to image."""

  config: VAEConfig
  dtype: Any

  @nn.compact
  def __call__(self, x):
    config = self.config
    widths = config.block_out_channels[::-1]
    x = layers.conv(widths[0], self.dtype, "conv_in")(x)
    x = MidBlock(config, self.dtype, name="mid_block")(x)
    for i, channels in enumerate(widths):
      for j in range(config.layers_per_block + 1):
        x = _resnet(self, channels, f"up_blocks.{i}.resnets.{j}")(x)
      if i < len(widths) - 1:
        name = f"up_blocks.{i}.upsamplers.0.conv"
        x = layers.upsample(channels, self.dtype, name)(x)
    return _head(self, x, config.out_channels)


class MidBlock(nn.Module):
  """Two residual blocks at the coarsest resolution, attention between."""

  config: VAEConfig
  dtype: Any

  @nn.compact
  def __call__(self, x):
    channels = x.shape[-1]
    x = _resnet(self, channels, "resnets.0")(x)
    if self.config.mid_block_add_attention:
      norm = layers.GroupNorm(
          self.config.norm_num_groups, EPSILON, name="attentions.0.group_norm"
      )
      attention = layers.Attention(
          heads=1,
          bias=True,
          out_init=layers.zeros,
          dtype=self.dtype,
          name="attentions.0",
      )
      tokens = norm(x).reshape(x.shape[0], -1, channels)
      x = x + attention(tokens).reshape(x.shape)
    return _resnet(self, channels, "resnets.1")(x)


def _resnet(block, channels, name):
  return layers.Resnet(
      channels, block.config.norm_num_groups, EPSILON, block.dtype, name=name
  )


def _head(block, x, channels):
  norm = layers.GroupNorm(
      block.config.norm_num_groups, EPSILON, name="conv_norm_out"
  )
  return layers.conv(channels, block.dtype, "conv_out")(nn.silu(norm(x)))
