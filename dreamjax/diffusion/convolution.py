"""Convolutions that XLA is better told how to compute.

The derivative by x is a convolution with the kernel turned round. JAX's own
keeps the kernel and asks for another layout instead; XLA:CPU brings that into
the layout of its fast path, but only outside of loops. Inside one it takes
five times as long.

[h, w, C, C'] are the shapes of kernels, B images, H W pixels.
"""

import functools

import jax
import jax.numpy as jnp


def general_dilated(x, kernel, strides, padding, **_):
  """Convolution as flax.linen.Conv asks for it.

  Args:
    x: [B, H, W, C].
    kernel: [h, w, C, C'].
    strides: two ints.
    padding: two pairs of ints.
    **_: dilation, groups and layout, which Flax always names; the defaults.
  Returns:
    [B, H', W', C'].
  """
  return _convolve(x, kernel, tuple(strides), tuple(padding))


def of_upsampled(x, kernel, *_, **__):
  """A 3x3 convolution of x with every pixel four times.

  Among four equal pixels a kernel of three rows sees two different ones, so
  each quarter of the result is a 2x2 convolution of x, by sums of the kernel's
  numbers: 4/9 of the products, and no large x.

  Args:
    x: [B, H, W, C].
    kernel: [3, 3, C, C'].
    *_: stride 1 and a padding of 1, which flax.linen.Conv always names.
    **__: as in `general_dilated`.
  Returns:
    [B, 2H, 2W, C'].
  """
  batch, height, width, channels = x.shape
  # [b, a, 2, 2, C, C'] for row 2i + a and column 2j + b of the result.
  pairs = _pairs(_pairs(kernel.astype(jnp.float32), 0), 2)
  pairs = pairs.transpose(2, 3, 4, 1, 0, 5).reshape(2, 2, channels, -1)
  quarters = _convolve(
      x, pairs.astype(kernel.dtype), (1, 1), ((1, 1), (1, 1))
  ).reshape(batch, height + 1, width + 1, 2, 2, -1)
  # Windows begin a pixel before x; an odd row or column sees the next window.
  rows = [
      jnp.stack(
          [quarters[:, a : a + height, b : b + width, a, b] for b in (0, 1)],
          axis=3,
      )
      for a in (0, 1)
  ]
  return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, -1)


def _pairs(kernel, axis):
  """For even and for odd places, what two pixels in a row are multiplied by."""
  first, middle, last = jnp.split(kernel, 3, axis)
  return jnp.stack([
      jnp.concatenate([first, middle + last], axis),
      jnp.concatenate([first + middle, last], axis),
  ])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, strides, padding):
  return _by_xla(x, kernel, strides, padding)


def _by_xla(x, kernel, strides, padding, lhs_dilation=None):
  return jax.lax.conv_general_dilated(
      x,
      kernel,
      strides,
      padding,
      lhs_dilation,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _convolve_fwd(x, kernel, strides, padding):
  return _convolve(x, kernel, strides, padding), (x, kernel)


def _convolve_bwd(strides, padding, residual, cotangent):
  x, kernel = residual
  around = []
  for axis, (stride, (before, _)) in enumerate(zip(strides, padding)):
    size = kernel.shape[axis]
    length = stride * (cotangent.shape[axis + 1] - 1) + 1
    missing = x.shape[axis + 1] + size - 1 - length
    around.append((size - 1 - before, missing - (size - 1 - before)))
  turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
  by_x = _by_xla(cotangent, turned, (1, 1), around, strides)
  _, pull = jax.vjp(lambda k: _by_xla(x, k, strides, padding), kernel)
  return by_x, *pull(cotangent)


_convolve.defvjp(_convolve_fwd, _convolve_bwd)
