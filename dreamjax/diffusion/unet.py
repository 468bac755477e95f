"""The denoiser of Stable Diffusion 1.x and 2.x (Rombach et al. 2022).

The same network as diffusers' UNet2DConditionModel, shaped by that model's
config.json.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dreamjax.diffusion import layers
from dreamjax.diffusion import settings
from dreamjax.diffusion import transformer

DOWN_BLOCKS = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
UP_BLOCKS = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}
"""Block names, and whether such a block attends to the text."""


@dataclasses.dataclass(frozen=True)
class UNetConfig:
  """Shape of a UNet; names, meanings and defaults are those of diffusers.

  Attributes:
    sample_size: side of the latents that it was made for.
    in_channels: channels of the noisy latent.
    out_channels: channels of the prediction.
    down_block_types: keys of `DOWN_BLOCKS`, finest first.
    up_block_types: keys of `UP_BLOCKS`, coarsest first.
    block_out_channels: width of each resolution, finest first.
    layers_per_block: residual blocks per resolution going down; one more
      going up.
    attention_head_dim: number of heads (sic), one or one per resolution.
    cross_attention_dim: width of the text embedding.
    use_linear_projection: whether transformers project by a matrix instead of
      a 1x1 convolution; the arithmetic is the same, the stored shape is not.
    norm_num_groups: groups of the group norms.
    norm_eps: epsilon of the residual blocks' norms.
    flip_sin_to_cos: whether cosines come first in the time embedding.
    freq_shift: subtracted from the number of its frequencies.
    upcast_attention: accepted; scores and softmax are always float32 here.
  """

  sample_size: int = 64
  in_channels: int = 4
  out_channels: int = 4
  down_block_types: tuple[str, ...] = (
      "CrossAttnDownBlock2D",
      "CrossAttnDownBlock2D",
      "CrossAttnDownBlock2D",
      "DownBlock2D",
  )
  up_block_types: tuple[str, ...] = (
      "UpBlock2D",
      "CrossAttnUpBlock2D",
      "CrossAttnUpBlock2D",
      "CrossAttnUpBlock2D",
  )
  block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
  layers_per_block: int = 2
  attention_head_dim: int | tuple[int, ...] = 8
  cross_attention_dim: int = 1280
  use_linear_projection: bool = False
  norm_num_groups: int = 32
  norm_eps: float = 1e-5
  flip_sin_to_cos: bool = True
  freq_shift: int = 0
  upcast_attention: bool = False

  def __post_init__(self):
    settings.require_choices("down_block_types", self, DOWN_BLOCKS)
    settings.require_choices("up_block_types", self, UP_BLOCKS)
    levels = len(self.block_out_channels)
    for name in ("down_block_types", "up_block_types", "heads"):
      if len(getattr(self, name)) != levels:
        raise ValueError(
            f"UNetConfig: {name} has {len(getattr(self, name))} entries, want"
            f" {levels}, one per entry of block_out_channels."
        )
    for channels, heads in zip(self.block_out_channels, self.heads):
      if channels % heads or channels % self.norm_num_groups:
        raise ValueError(
            f"UNetConfig: {channels} channels cannot be split into"
            f" {heads} heads and {self.norm_num_groups} norm groups."
        )

  @property
  def heads(self):
    """Number of attention heads per resolution, finest first."""
    if isinstance(self.attention_head_dim, int):
      return (self.attention_head_dim,) * len(self.block_out_channels)
    return self.attention_head_dim


NEUTRAL = {
    "_class_name": ("UNet2DConditionModel",),
    "act_fn": ("silu", "swish"),
    "center_input_sample": (False,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "only_cross_attention": (False,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "dropout": (0.0,),
    "transformer_layers_per_block": (1,),
    "dual_cross_attention": (False,),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1.0,),
    "time_embedding_type": ("positional",),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "addition_embed_type_num_heads": (64,),
}
"""Values of diffusers' other fields that leave this network as it is."""


def read_config(values):
  """UNetConfig of the parsed unet/config.json."""
  return settings.read("unet/config.json", values, UNetConfig, NEUTRAL)


def embed_time(time, config):
  """Sinusoidal embedding of timesteps (Vaswani et al. 2017, section 3.5).

  Args:
    time: i32[B] or f32[B].
    config: UNetConfig.
  Returns:
    f32[B, E], E = block_out_channels[0].
  """
  half = config.block_out_channels[0] // 2
  power = jnp.arange(half, dtype=jnp.float32) / (half - config.freq_shift)
  angle = time.astype(jnp.float32)[:, None] * jnp.exp(
      -math.log(10_000.0) * power
  )
  parts = [jnp.sin(angle), jnp.cos(angle)]
  return jnp.concatenate(parts[::-1] if config.flip_sin_to_cos else parts, -1)


class UNet(nn.Module):
  """Predicts noise or velocity of a noisy latent.

  Attributes:
    config: UNetConfig.
    dtype: of the arithmetic.
  """

  config: UNetConfig
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, noisy, time, context):
    """One evaluation.

    Args:
      noisy: [B, H, W, in_channels]; H and W are multiples of
        2^(levels - 1).
      time: i32[B], timesteps.
      context: [B, S, cross_attention_dim], text embedding.
    Returns:
      [B, H, W, out_channels], the raw prediction, in `dtype`.
    Raises:
      ValueError: H or W is not such a multiple.
    """
    config = self.config
    levels = len(config.block_out_channels)
    if noisy.shape[1] % 2 ** (levels - 1) or noisy.shape[2] % 2 ** (levels - 1):
      raise ValueError(
          f"UNet: latent is {noisy.shape[1]}x{noisy.shape[2]}, want sides that"
          f" are multiples of {2 ** (levels - 1)}."
      )
    time = self._time(time)
    context = context.astype(self.dtype)
    x = layers.conv(config.block_out_channels[0], self.dtype, "conv_in")(
        noisy.astype(self.dtype)
    )
    skips = [x]
    for i in range(levels):
      block = _DownBlock(
          config, i, i == levels - 1, self.dtype, name=f"down_blocks.{i}"
      )
      x, new_skips = block(x, time, context)
      skips += new_skips
    x = _MidBlock(config, self.dtype, name="mid_block")(x, time, context)
    for i in range(levels):
      block = _UpBlock(
          config, i, i == levels - 1, self.dtype, name=f"up_blocks.{i}"
      )
      count = config.layers_per_block + 1
      x = block(x, skips[-count:], time, context)
      del skips[-count:]
    x = layers.GroupNorm(
        config.norm_num_groups, config.norm_eps, name="conv_norm_out"
    )(x)
    return layers.conv(
        config.out_channels, self.dtype, "conv_out", kernel_init=layers.zeros
    )(nn.silu(x))

  def _time(self, time):
    """SiLU of the time embedding, as every residual block wants it."""
    width = 4 * self.config.block_out_channels[0]
    # float32: timesteps up to 1000 are not exact in bfloat16.
    dense = lambda name: nn.Dense(width, dtype=jnp.float32, name=name)
    h = dense("time_embedding.linear_1")(embed_time(time, self.config))
    h = dense("time_embedding.linear_2")(nn.silu(h))
    return nn.silu(h).astype(self.dtype)


class _DownBlock(nn.Module):
  config: UNetConfig
  level: int  # 0 is the finest
  last: bool
  dtype: Any

  @nn.compact
  def __call__(self, x, time, context):
    skips = []
    channels = self.config.block_out_channels[self.level]
    for j in range(self.config.layers_per_block):
      x = _resnet(self, j, channels)(x, time)
      if DOWN_BLOCKS[self.config.down_block_types[self.level]]:
        x = _transformer(self, j, self.level)(x, context)
      skips.append(x)
    if not self.last:
      x = layers.conv(channels, self.dtype, "downsamplers.0.conv", stride=2)(x)
      skips.append(x)
    return x, skips


class _MidBlock(nn.Module):
  config: UNetConfig
  dtype: Any

  @nn.compact
  def __call__(self, x, time, context):
    x = _resnet(self, 0, x.shape[-1])(x, time)
    x = _transformer(self, 0, -1)(x, context)
    return _resnet(self, 1, x.shape[-1])(x, time)


class _UpBlock(nn.Module):
  config: UNetConfig
  level: int  # 0 is the coarsest
  last: bool
  dtype: Any

  @nn.compact
  def __call__(self, x, skips, time, context):
    channels = self.config.block_out_channels[-1 - self.level]
    for j, skip in enumerate(reversed(skips)):
      x = jnp.concatenate([x, skip], -1)
      x = _resnet(self, j, channels)(x, time)
      if UP_BLOCKS[self.config.up_block_types[self.level]]:
        x = _transformer(self, j, -1 - self.level)(x, context)
    if not self.last:
      x = layers.upsample(channels, self.dtype, "upsamplers.0.conv")(x)
    return x


def _resnet(block, index, channels):
  return layers.Resnet(
      channels,
      block.config.norm_num_groups,
      block.config.norm_eps,
      block.dtype,
      name=f"resnets.{index}",
  )


def _transformer(block, index, level):
  return transformer.Transformer(
      block.config.heads[level],
      block.config.norm_num_groups,
      block.config.use_linear_projection,
      block.dtype,
      name=f"attentions.{index}",
  )
