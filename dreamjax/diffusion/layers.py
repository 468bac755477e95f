"""Layers that the UNet, the autoencoder and the text tower share.

Submodules carry the names that diffusers and transformers give them, dots
included ("resnets.0"), so that a parameter's path is its checkpoint key.
Images are NHWC. Every module computes in its `dtype`; norm statistics and
softmax are float32 whatever it is. Parameters are float32 until a caller casts
them.

Notation: B images, H W pixels, C channels, T queries, S keys, N heads, D width
of a head.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamjax.diffusion import convolution

ATTENTION_BLOCK = 2**20
"""Largest number of scores, T S per head, that attention holds at once."""

CUDNN_KEYS = 512
"""Fewest keys S for which a fused kernel is worth its call: the pixels of a
latent, but not the 77 tokens of a text."""

CUDNN_WIDTH = 128
"""Widest head of cuDNN's fused attention on every GPU that has it."""

zeros = nn.initializers.zeros


class GroupNorm(nn.Module):
  """Group normalisation (Wu and He 2018) over pixels and channels of a group.

  Attributes:
    groups: number of groups; divides C.
    epsilon: added to the variance.
  """

  groups: int
  epsilon: float

  @nn.compact
  def __call__(self, x):
    channels = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (channels,))
    bias = self.param("bias", zeros, (channels,))

    def group_mean(per_channel):
      grouped = per_channel.reshape(x.shape[0], self.groups, -1)
      mean = grouped.mean(-1, keepdims=True)
      return jnp.broadcast_to(mean, grouped.shape).reshape(-1, 1, 1, channels)

    # Pixels first: a reduction over whole rows of channels vectorises, one
    # over the few channels of a group does not.
    wide = x.astype(jnp.float32)
    centered = wide - group_mean(wide.mean((1, 2)))
    variance = group_mean(jnp.square(centered).mean((1, 2)))
    factor = jax.lax.rsqrt(variance + self.epsilon) * _float32(scale)
    return (centered * factor + _float32(bias)).astype(x.dtype)


class LayerNorm(nn.Module):
  """Layer normalisation (Ba et al. 2016) over the last axis."""

  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x):
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
    bias = self.param("bias", zeros, (x.shape[-1],))
    wide = x.astype(jnp.float32)
    centered = wide - wide.mean(-1, keepdims=True)
    variance = jnp.square(centered).mean(-1, keepdims=True)
    normal = centered * jax.lax.rsqrt(variance + self.epsilon)
    return (normal * _float32(scale) + _float32(bias)).astype(x.dtype)


def _float32(x):
  return x.astype(jnp.float32)


def attend(query, key, value, *, causal=False):
  """Scaled dot-product attention (Vaswani et al. 2017, Eq. 1).

  Scores are never stored as a whole where there are many: cuDNN fuses them
  away, in half precision on a GPU. Elsewhere long sequences go through in
  blocks of queries, each recomputed in the backward pass, so that no more than
  `ATTENTION_BLOCK` scores per head exist at once.

  Args:
    query: [B, T, N, D].
    key: [B, S, N, D].
    value: [B, S, N, D].
    causal: whether query t sees keys 0..t only; short sequences only.
  Returns:
    [B, T, N, D] in the dtype of `query`.
  """
  batch, length, heads, width = query.shape
  implementation = "cudnn" if _suits_cudnn(query, key) else "xla"

  def block(query):
    # dot_product_attention rounds its scale to the inputs' dtype and mixes
    # the two; its own sums and softmax are float32.
    with jax.numpy_dtype_promotion("standard"):
      return jax.nn.dot_product_attention(
          query, key, value, is_causal=causal, implementation=implementation
      )

  rows = max(1, ATTENTION_BLOCK // key.shape[1])
  if length <= rows or implementation == "cudnn":
    return block(query)
  while length % rows:
    rows -= 1
  blocks = query.reshape(batch, -1, rows, heads, width).swapaxes(0, 1)
  return jax.lax.map(jax.checkpoint(block), blocks).swapaxes(0, 1).reshape(
      query.shape
  )


def _suits_cudnn(query, key):
  """Whether cuDNN's fused attention takes such arrays, and is worth it."""
  width = query.shape[-1]
  return (
      key.shape[1] >= CUDNN_KEYS
      and width % 8 == 0
      and width <= CUDNN_WIDTH
      and query.dtype in (jnp.bfloat16, jnp.float16)
      and _has_fused_attention()
  )


@functools.cache
def _has_fused_attention():
  """Whether the devices are NVIDIA's, Ampere or newer."""
  devices = jax.local_devices()
  return all(
      device.platform == "gpu"
      and device.device_kind.startswith("NVIDIA")
      and float(device.compute_capability) >= 8.0
      for device in devices
  )


def quick_gelu(x):
  """x sigmoid(1.702 x), the activation of OpenAI's CLIP."""
  return x * jax.nn.sigmoid(1.702 * x)


def gelu(x):
  """x Phi(x) with the exact normal distribution function."""
  return jax.nn.gelu(x, approximate=False)


class Attention(nn.Module):
  """Multi-head attention with diffusers' parameter names.

  Attributes:
    heads: number of heads; divides the width of x.
    bias: whether queries, keys and values have one (the output always has).
    out_init: initialiser of the output's matrix.
    dtype: of the arithmetic.
  """

  heads: int
  bias: bool = False
  out_init: Callable = nn.initializers.lecun_normal()
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, context=None):
    """x [B, T, C] attends to context [B, S, E], by default to itself."""
    width = x.shape[-1]
    context = x if context is None else context

    def project(name, tokens):
      dense = nn.Dense(width, self.bias, self.dtype, name=name)
      return dense(tokens).reshape(*tokens.shape[:2], self.heads, -1)

    mixed = attend(
        project("to_q", x), project("to_k", context), project("to_v", context)
    )
    return nn.Dense(
        width, dtype=self.dtype, kernel_init=self.out_init, name="to_out.0"
    )(mixed.reshape(x.shape))


class Resnet(nn.Module):
  """Residual block: two normalised convolutions, optionally with time.

  Attributes:
    channels: of the output.
    groups: of the norms.
    epsilon: of the norms.
    dtype: of the arithmetic.
  """

  channels: int
  groups: int
  epsilon: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, time=None):
    """x [B, H, W, C]; time, if any, [B, E], already through its SiLU."""
    h = nn.silu(GroupNorm(self.groups, self.epsilon, name="norm1")(x))
    h = conv(self.channels, self.dtype, "conv1")(h)
    if time is not None:
      shift = nn.Dense(self.channels, dtype=self.dtype, name="time_emb_proj")
      h = h + shift(time)[:, None, None]
    h = nn.silu(GroupNorm(self.groups, self.epsilon, name="norm2")(h))
    h = conv(self.channels, self.dtype, "conv2", kernel_init=zeros)(h)
    if x.shape[-1] != self.channels:
      x = conv(self.channels, self.dtype, "conv_shortcut", size=1)(x)
    return x + h


def conv(
    channels,
    dtype,
    name,
    *,
    size=3,
    stride=1,
    padding=None,
    kernel_init: Callable = nn.initializers.lecun_normal(),
):
  """A square convolution, padded to keep the size unless told otherwise."""
  return nn.Conv(
      channels,
      (size, size),
      stride,
      (size - 1) // 2 if padding is None else padding,
      dtype=dtype,
      kernel_init=kernel_init,
      conv_general_dilated=convolution.general_dilated,
      name=name,
  )


def upsample(channels, dtype, name):
  """A 3x3 convolution of every pixel four times: [B, 2H, 2W, channels]."""
  return nn.Conv(
      channels,
      (3, 3),
      padding=1,
      dtype=dtype,
      conv_general_dilated=convolution.of_upsampled,
      name=name,
  )
