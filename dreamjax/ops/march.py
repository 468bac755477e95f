"""Samples along rays, packed, where an occupancy grid is occupied."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamjax.ops import arguments
from dreamjax.ops import kernels

_MAX_INT32 = 2**31 - 1


class Samples(NamedTuple):
  """Samples of all rays in ray order, in M slots.

  Attributes:
    distance: f32[..., M], from the ray's origin, units; 0 in an empty slot.
    width: f32[..., M], length that a sample stands for, units; 0 in an empty
      slot.
    ray: i32[..., M], the sample's ray; 0 in an empty slot.
    offset: i32[..., R+1], ray r owns the slots offset[r] to offset[r+1] - 1.
    overflow: i32[...], samples that found no slot.
  """

  distance: jax.Array
  width: jax.Array
  ray: jax.Array
  offset: jax.Array
  overflow: jax.Array


def march(
    origin, direction, jitter, occupancy, *, step, bound, max_samples
):
  """Samples at regular distances inside a ball, where a grid is occupied.

  Ray r meets the ball |x| <= bound in [t_near, t_far], t_near >= 0. Its
  candidates are t_k = t_near + (k + jitter) step < t_far; those in an occupied
  cell become samples. Slots go to rays in order; samples beyond the last
  slot are dropped and counted.

  Args:
    origin: f32[..., R, 3], units.
    direction: f32[..., R, 3], of length 1.
    jitter: f32[..., R], in [0, 1).
    occupancy: u8[..., G, G, ceil(G / 8)], of `pack`; axes x, y, z over
      [-bound, bound].
    step: distance between candidates, units.
    bound: radius of the ball, units.
    max_samples: number of slots, M.
  Returns:
    Samples; no gradient flows through them. A ray with a NaN has none.
  Raises:
    TypeError: an array has a wrong dtype.
    ValueError: a shape or a number does not fit.
  """
  sizes = arguments.check(
      "march",
      origin=(origin, "float32", ("R", 3)),
      direction=(direction, "float32", ("R", 3)),
      jitter=(jitter, "float32", ("R",)),
      occupancy=(occupancy, "uint8", ("G", "G", "B")),
  )
  if not (step > 0 and bound > 0 and math.isfinite(bound / step)):
    raise ValueError(
        f"march: step is {step}, bound is {bound}, want positive lengths."
    )
  candidates = math.ceil(2 * bound / step)
  if max(sizes["R"], 1) * candidates > _MAX_INT32:
    raise ValueError(
        f"march: {sizes['R']} rays x {candidates} candidates exceed"
        f" {_MAX_INT32}, the largest sample count; march fewer rays at a time"
        " or in longer steps."
    )
  if not 0 <= max_samples <= _MAX_INT32:
    raise ValueError(
        f"march: max_samples is {max_samples}, want 0 to {_MAX_INT32}."
    )
  if sizes["G"] < 1 or sizes["G"] > 1024:
    raise ValueError(
        f"march: occupancy has {sizes['G']} cells per axis, want 1 to 1024."
    )
  if sizes["B"] != -(-sizes["G"] // 8):
    raise ValueError(
        f"march: occupancy has {sizes['B']} bytes along its last axis, want"
        f" {-(-sizes['G'] // 8)}: {sizes['G']} cells, eight to a byte; make it"
        " with march.pack."
    )
  arrays = jax.lax.stop_gradient((origin, direction, jitter, occupancy))
  return _march(*arrays, step, bound, max_samples, candidates)


def pack(occupied):
  """Packs a grid of cells into the bits that `march` reads.

  Args:
    occupied: bool[..., G, G, G], axes x, y, z.
  Returns:
    u8[..., G, G, ceil(G / 8)]; cell z is bit z % 8 of byte z // 8.
  """
  return jnp.packbits(occupied, axis=-1, bitorder="little")


def definition(
    origin, direction, jitter, occupancy, *, step, bound, max_samples
):
  """`march` in jax.numpy: specification, oracle and fallback."""
  if jitter.ndim > 1:
    march_one = functools.partial(
        definition, step=step, bound=bound, max_samples=max_samples
    )
    return jax.vmap(march_one)(origin, direction, jitter, occupancy)
  num_rays, resolution = jitter.shape[0], occupancy.shape[0]
  # From the point of the ray that is closest to the centre, whose distance
  # rounds better than the quadratic formula's difference of squares.
  middle = -jnp.sum(origin * direction, axis=-1)
  closest = origin + middle[:, None] * direction
  half = jnp.sqrt(
      jnp.maximum(bound * bound - jnp.sum(closest * closest, axis=-1), 0)
  )
  near = jnp.maximum(middle - half, 0)
  count = jnp.arange(math.ceil(2 * bound / step), dtype=jnp.float32)
  distance = near[:, None] + (count + jitter[:, None]) * step
  cells_per_unit = resolution / (2 * bound)
  start = (origin + bound) * cells_per_unit
  slope = direction * cells_per_unit
  cell = start[:, None] + distance[..., None] * slope[:, None]
  x, y, z = jnp.moveaxis(
      jnp.clip(cell, 0, resolution - 1).astype(jnp.int32), -1, 0
  )
  inside = distance < (middle + half)[:, None]
  bit = (z % 8).astype(jnp.uint8)
  keep = inside & ((occupancy[x, y, z // 8] >> bit & 1) != 0)

  slot = jnp.cumsum(keep.ravel(), dtype=jnp.int32)
  total = jnp.sum(keep, dtype=jnp.int32)
  slot = jnp.where(keep.ravel(), slot - 1, max_samples)
  ray = jnp.broadcast_to(
      jnp.arange(num_rays, dtype=jnp.int32)[:, None], keep.shape
  )

  def pack(values, dtype):
    empty = jnp.zeros(max_samples, dtype)
    return empty.at[slot].set(values.ravel().astype(dtype), mode="drop")

  ends = jnp.cumsum(jnp.sum(keep, axis=1, dtype=jnp.int32), dtype=jnp.int32)
  offset = jnp.concatenate([jnp.zeros(1, jnp.int32), ends])
  return Samples(
      pack(distance, jnp.float32),
      pack(jnp.full_like(distance, step), jnp.float32),
      pack(ray, jnp.int32),
      jnp.minimum(offset, max_samples),
      jnp.maximum(total - max_samples, 0),
  )


def _march(
    origin, direction, jitter, occupancy, step, bound, max_samples, candidates
):
  """Runs the kernel."""
  batch, num_rays = jitter.shape[:-1], jitter.shape[-1]
  floats = jax.ShapeDtypeStruct(batch + (max_samples,), jnp.float32)
  integers = jax.ShapeDtypeStruct(batch + (max_samples,), jnp.int32)
  offset = jax.ShapeDtypeStruct(batch + (num_rays + 1,), jnp.int32)
  overflow = jax.ShapeDtypeStruct(batch, jnp.int32)

  def define(*arrays):
    return tuple(
        definition(*arrays, step=step, bound=bound, max_samples=max_samples)
    )

  samples = kernels.call(
      "dreamjax_march",
      define,
      (floats, floats, integers, offset, overflow),
      origin,
      direction,
      jitter,
      occupancy,
      step=np.float32(step),
      bound=np.float32(bound),
      candidates=np.int32(candidates),
  )
  return Samples(*samples)
