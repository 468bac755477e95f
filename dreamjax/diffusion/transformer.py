"""The transformer over pixels by which the UNet reads the text.

B images, H W pixels, C channels, T = H W tokens, S text tokens, E their width.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dreamjax.diffusion import layers

EPSILON = 1e-6
"""Of the group norm in front of a transformer (diffusers' constant)."""


class TransformerBlock(nn.Module):
  """Self-attention, attention to the text, gated MLP; each residual."""

  heads: int
  dtype: Any

  @nn.compact
  def __call__(self, x, context):
    """x [B, T, C], context [B, S, E] -> [B, T, C]."""
    width = x.shape[-1]
    dense = lambda size, name: nn.Dense(size, dtype=self.dtype, name=name)
    attention = lambda name: layers.Attention(
        self.heads, dtype=self.dtype, name=name
    )
    x = x + attention("attn1")(layers.LayerNorm(name="norm1")(x))
    x = x + attention("attn2")(layers.LayerNorm(name="norm2")(x), context)
    h = dense(8 * width, "ff.net.0.proj")(layers.LayerNorm(name="norm3")(x))
    value, gate = jnp.split(h, 2, -1)
    h = value * layers.gelu(gate)  # GEGLU (Shazeer 2020, Eq. 6)
    return x + dense(width, "ff.net.2")(h)


class Transformer(nn.Module):
  """A transformer block over the pixels of an image, residual.

  Attributes:
    heads: number of attention heads.
    groups: of the norm in front.
    linear: whether it projects by matrices instead of 1x1 convolutions; the
      arithmetic is the same, the stored shape is not.
    dtype: of the arithmetic.
  """

  heads: int
  groups: int
  linear: bool
  dtype: Any

  @nn.compact
  def __call__(self, x, context):
    """x [B, H, W, C], context [B, S, E] -> [B, H, W, C]."""
    width = x.shape[-1]

    def project(name, h, init=nn.initializers.lecun_normal()):
      if self.linear:
        return nn.Dense(width, dtype=self.dtype, kernel_init=init, name=name)(h)
      return layers.conv(
          width, self.dtype, name, size=1, kernel_init=init
      )(h)

    h = layers.GroupNorm(self.groups, EPSILON, name="norm")(x)
    h = project("proj_in", h).reshape(x.shape[0], -1, width)
    h = TransformerBlock(self.heads, self.dtype, name="transformer_blocks.0")(
        h, context
    )
    return x + project("proj_out", h.reshape(x.shape), layers.zeros)
