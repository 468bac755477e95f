"""A small network of ReLU layers, fused: hidden layers never leave the chip.

Notation: N points, C inputs, O outputs, L matrices W_l, S weights in all.

With h_0 = x, z_l = h_{l-1} W_{l-1} and h_l = max(z_l, 0), the output f is z_L.
Training with analytic normals pulls f back twice. With a cotangent g of the
output and a cotangent v of the input's gradient,

  G(W, x, g) = d<g, f>/dx                `_input_gradient`
  d<g, f>/d(W, x)                        `_gradient`
  d<v, G>/d(W, g)                        `_second`

and d<v, G>/dx = 0: between the kinks f is linear in x. A backward pass
computes the hidden layers anew, which costs less than to read them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dreamjax.ops import arguments
from dreamjax.ops import kernels

_MAX_WIDTH = 128
_MAX_MATRICES = 5
# Points of a part of a sum, where the parts then take less than 16 MB.
_PART = 2**10
_MAX_PARTIAL = 2**22


def mlp(weights, x):
  """Outputs of ReLU layers without biases.

  Args:
    weights: list or tuple of f32[..., C, H], f32[..., H, ...], ...,
      f32[..., ..., O]; every one but the last is followed by max(z, 0).
    x: f32[..., N, C].
  Returns:
    f32[..., N, O]. Differentiable in reverse mode with respect to both, and
    its gradient once more. Sums are float32; a NaN in a point gives NaN there,
    as an infinite number does on a GPU, whose tensor cores take factors apart.
  Raises:
    TypeError: an array has a wrong dtype.
    ValueError: there is no matrix, or a shape does not fit.
  """
  weights = tuple(weights)
  if not weights:
    raise ValueError("mlp: weights is empty, want at least one matrix.")
  names = ("C", *(f"H{i}" for i in range(1, len(weights))), "O")
  arguments.check(
      "mlp",
      x=(x, "float32", ("N", "C")),
      **{
          f"weights[{i}]": (weight, "float32", names[i : i + 2])
          for i, weight in enumerate(weights)
      },
  )
  return _value(weights, x) if fits(weights) else definition(weights, x)


def definition(weights, x):
  """`mlp` in jax.numpy: specification, oracle and fallback."""
  hidden = x @ weights[0]
  for weight in weights[1:]:
    hidden = jax.nn.relu(hidden) @ weight
  return hidden


def sizes(weights):
  """i32[L + 1], widths of the input, the hidden layers and the output."""
  widths = [weight.shape[-2] for weight in weights] + [weights[-1].shape[-1]]
  return np.asarray(widths, np.int32)


def fits(weights):
  """Whether the kernels know networks of this shape."""
  widths = sizes(weights)
  return (
      len(weights) <= _MAX_MATRICES
      and 0 < widths.min()
      and widths.max() <= _MAX_WIDTH
  )


def flat(weights):
  """f32[..., S], the matrices one after another."""
  return jnp.concatenate(
      [w.reshape(*w.shape[:-2], -1) for w in weights], axis=-1
  )


def matrices(numbers, like):
  """The inverse of `flat`, for matrices of the shapes of `like`."""
  shapes = [weight.shape[-2:] for weight in like]
  ends = np.cumsum([rows * columns for rows, columns in shapes])
  parts = jnp.split(numbers, ends[:-1].tolist(), axis=-1)
  return tuple(
      part.reshape(*part.shape[:-1], *shape)
      for part, shape in zip(parts, shapes)
  )


def num_parts(weights, num_points):
  """Q, into how many parts the gradient of the weights is cut.

  Points decide and not threads: so neither can change a bit of the sum.
  """
  count = sum(weight.shape[-2] * weight.shape[-1] for weight in weights)
  return max(min(-(-num_points // _PART), _MAX_PARTIAL // count), 1)


def partial(gradients, parts):
  """f32[..., Q, S] whose sum over Q is `flat(gradients)`: all in one part."""
  numbers = flat(gradients)[..., None, :]
  gap = [(0, 0)] * (numbers.ndim - 2) + [(0, parts - 1), (0, 0)]
  return jnp.pad(numbers, gap)


def _call(target, define, weights, x, *arrays, width, with_sum):
  """Runs a kernel.

  Args:
    target: its name.
    define: function of (weights, x, *arrays), its definition: an array and,
      with a sum, the gradients of the weights.
    weights: as for `mlp`.
    x: as well.
    *arrays: f32[..., N, C or O].
    width: of the array that the kernel makes.
    with_sum: whether it makes the gradients of the weights too.
  Returns:
    f32[..., N, width], and tuple of f32 like weights (or None).
  """
  batch, num_points = x.shape[:-2], x.shape[-2]
  results = [jax.ShapeDtypeStruct((*batch, num_points, width), jnp.float32)]
  numbers = flat(weights)
  parts = num_parts(weights, num_points)
  if with_sum:
    results.append(
        jax.ShapeDtypeStruct((*batch, parts, numbers.shape[-1]), jnp.float32)
    )

  def define_flat(numbers, x, *arrays):
    result = define(matrices(numbers, weights), x, *arrays)
    if not with_sum:
      return (result,)
    result, gradients = result
    return result, partial(gradients, parts)

  result, *sums = kernels.call(
      "dreamjax_" + target,
      define_flat,
      tuple(results),
      numbers,
      x,
      *arrays,
      sizes=sizes(weights),
  )
  if not with_sum:
    return result, None
  return result, matrices(jnp.sum(sums[0], axis=-2), weights)


def values(*primals):
  """The arrays of jax.custom_derivatives.CustomVJPPrimal leaves."""
  return jax.tree.map(
      lambda leaf: leaf.value,
      primals,
      is_leaf=lambda leaf: hasattr(leaf, "perturbed"),
  )


@jax.custom_vjp
def _value(weights, x):
  """f(W, x)."""
  return _call(
      "mlp",
      definition,
      weights,
      x,
      width=weights[-1].shape[-1],
      with_sum=False,
  )[0]


def _value_fwd(weights, x):
  # Normals pull back to the input alone: the weights are then constants of
  # this pull, if not of the one around it.
  is_wanted = any(weight.perturbed for weight in weights)
  weights, x = values(weights, x)
  return _value(weights, x), (weights, x, () if is_wanted else None)


def _value_bwd(residual, cotangent):
  weights, x, is_wanted = residual
  if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
    return None, None
  if is_wanted is None:
    return None, _input_gradient(weights, x, cotangent)
  return _gradient(weights, x, cotangent)


_value.defvjp(_value_fwd, _value_bwd, symbolic_zeros=True)


def _define_gradient(weights, x, cotangent):
  """Cotangents of (weights, x)."""
  return jax.vjp(definition, weights, x)[1](cotangent)


def _define_input_gradient(weights, x, cotangent):
  pull = jax.vjp(lambda x: definition(weights, x), x)[1]
  return pull(cotangent)[0]


@jax.custom_vjp
def _gradient(weights, x, cotangent):
  """d<g, f>/d(W, x). Its own derivative is that of the definition."""

  def define(weights, x, cotangent):
    gradients, gradient = _define_gradient(weights, x, cotangent)
    return gradient, gradients

  gradient, gradients = _call(
      "mlp_gradient",
      define,
      weights,
      x,
      cotangent,
      width=x.shape[-1],
      with_sum=True,
  )
  return gradients, gradient


def _gradient_fwd(weights, x, cotangent):
  return _gradient(weights, x, cotangent), (weights, x, cotangent)


def _gradient_bwd(residual, cotangents):
  return jax.vjp(_define_gradient, *residual)[1](cotangents)


_gradient.defvjp(_gradient_fwd, _gradient_bwd)


@jax.custom_vjp
def _input_gradient(weights, x, cotangent):
  """G(W, x, g)."""
  return _call(
      "mlp_input_gradient",
      _define_input_gradient,
      weights,
      x,
      cotangent,
      width=x.shape[-1],
      with_sum=False,
  )[0]


def _input_gradient_fwd(weights, x, cotangent):
  return _input_gradient(weights, x, cotangent), (weights, x, cotangent)


def _input_gradient_bwd(residual, direction):
  weights, x, cotangent = residual

  def define(weights, x, cotangent, direction):
    gradients, gradient = jax.vjp(
        functools.partial(_swapped, x), weights, cotangent
    )[1](direction)
    return gradient, gradients

  gradient, gradients = _call(
      "mlp_second",
      define,
      weights,
      x,
      cotangent,
      direction,
      width=cotangent.shape[-1],
      with_sum=True,
  )
  return gradients, None, gradient


def _swapped(x, weights, cotangent):
  """G of what it depends on."""
  return _define_input_gradient(weights, x, cotangent)


_input_gradient.defvjp(_input_gradient_fwd, _input_gradient_bwd)
