"""Volume rendering of packed samples (Max 1995; Mildenhall et al. 2020)."""

import jax
import jax.numpy as jnp

from dreamjax.ops import arguments
from dreamjax.ops import kernels


def composite(density, value, width, offset):
  """Sums values along rays, weighted by the light that they send.

  With depth_i = density_i width_i and T_i = exp(-sum of depth_j over the
  ray's samples j < i), weight_i = T_i (1 - exp(-depth_i))
  (Mildenhall et al. 2020, Eq. 3).

  Args:
    density: f32[..., M], 1/unit, >= 0.
    value: f32[..., M, C].
    width: f32[..., M], units.
    offset: i32[..., R+1], from 0, non-decreasing, <= M; ray r owns the slots
      offset[r] to offset[r+1] - 1.
  Returns:
    value f32[..., R, C], sum of weight value: not normalised, no background;
    opacity f32[..., R], sum of weights, 1 - T at the end of the ray;
    weight f32[..., M], 0 in slots that no ray owns.
    Differentiable in reverse mode with respect to density, value and width.
  Raises:
    TypeError: an array has a wrong dtype.
    ValueError: a shape does not fit.
  """
  arguments.check(
      "composite",
      density=(density, "float32", ("M",)),
      value=(value, "float32", ("M", "C")),
      width=(width, "float32", ("M",)),
      offset=(offset, "int32", ("R+1",)),
  )
  return _composite(density, value, width, offset)


def definition(density, value, width, offset):
  """`composite` in jax.numpy: specification, oracle and fallback."""
  if density.ndim > 1:
    return jax.vmap(definition)(density, value, width, offset)
  slot = jnp.arange(density.shape[0], dtype=jnp.int32)
  ray = jnp.searchsorted(offset[1:], slot, side="right")
  starts = slot == offset[ray]

  # A sum that begins anew at each ray; the difference of two running sums
  # would lose what is small against all rays before.
  def add(left, right):
    left_starts, left_sum = left
    right_starts, right_sum = right
    total = jnp.where(right_starts, right_sum, left_sum + right_sum)
    return left_starts | right_starts, total

  depth = jnp.where(slot < offset[-1], density * width, 0)
  _, through = jax.lax.associative_scan(add, (starts, depth))
  before = jnp.where(starts, 0, jnp.roll(through, 1))
  weight = jnp.exp(-before) * -jnp.expm1(-depth)

  def rays(values):
    # One more segment for the slots that no ray owns.
    segments = offset.shape[0]
    return jax.ops.segment_sum(values, ray, num_segments=segments)[:-1]

  return rays(weight[:, None] * value), rays(weight), weight


@jax.custom_vjp
def _composite(density, value, width, offset):
  batch, num_slots = density.shape[:-1], density.shape[-1]
  num_rays = offset.shape[-1] - 1
  return kernels.call(
      "dreamjax_composite",
      definition,
      (
          jax.ShapeDtypeStruct(
              batch + (num_rays, value.shape[-1]), jnp.float32
          ),
          jax.ShapeDtypeStruct(batch + (num_rays,), jnp.float32),
          jax.ShapeDtypeStruct(batch + (num_slots,), jnp.float32),
      ),
      density,
      value,
      width,
      offset,
  )


def _composite_fwd(density, value, width, offset):
  arrays = (density.value, value.value, width.value, offset.value)
  # Widths are hardly ever trained.
  return _composite(*arrays), (arrays, () if width.perturbed else None)


def _composite_bwd(residual, cotangents):
  (density, value, width, offset), moves = residual
  # Where nobody asks, an array of no more than this is made, or read.
  nothing = density.shape[:-1] + (0,)

  def some(cotangent, shape):
    if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
      return jnp.zeros(shape, jnp.float32)
    return cotangent

  by_rays, by_opacity, by_weight = cotangents
  cotangents = (
      some(by_rays, by_rays.shape),
      some(by_opacity, by_opacity.shape),
      some(by_weight, nothing),
  )

  def define(density, value, width, offset, by_rays, by_opacity, by_weight):
    if by_weight.shape != density.shape:
      by_weight = jnp.zeros_like(density)
    _, pull = jax.vjp(
        lambda *arrays: definition(*arrays, offset), density, value, width
    )
    *others, by_width = pull((by_rays, by_opacity, by_weight))
    return *others, by_width if moves is not None else by_width[..., :0]

  shapes = density.shape, value.shape, nothing if moves is None else width.shape
  *others, by_width = kernels.call(
      "dreamjax_composite_gradient",
      define,
      tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes),
      density,
      value,
      width,
      offset,
      *cotangents,
  )
  return *others, by_width if moves is not None else None, None


_composite.defvjp(_composite_fwd, _composite_bwd, symbolic_zeros=True)
