"""Toys as unions of solids, and where rays meet them.

Notation: K slots for solids, R rays. Rays are [3, R], so that the few
components are rows and the many rays vectorise. A solid's local coordinates
q = A (x - c) turn it into a unit solid: the ball |q| <= 1, the cube
max |q_i| <= 1, or the frustum |q_z| <= 1, |q_xy| <= a + b q_z.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dreamjax.toybox import kinds
from dreamjax.toybox import words

SLOTS = 20
_SHAPES = ("ellipsoid", "box", "frustum")
_FAR = 1e9
# Rays leave a surface they start on, and parallel rays never meet.
_NEAR = 1e-4
_TINY = 1e-9


class Toy(NamedTuple):
  """A union of solids, padded to K slots.

  Attributes:
    count: i32[], slots in use; they come first.
    shape: i32[K], index into ellipsoid, box, frustum.
    center: f32[K, 3], c, units.
    local: f32[K, 3, 3], A.
    taper: f32[K], radius of a frustum's top over that of its bottom.
    color: f32[K, 3], linear RGB of parts with a colour of their own.
    painted: f32[K], 1 for parts in the colour of the caption.
    front: f32[K], 1 for parts of the front feature.
  """

  count: np.ndarray
  shape: np.ndarray
  center: np.ndarray
  local: np.ndarray
  taper: np.ndarray
  color: np.ndarray
  painted: np.ndarray
  front: np.ndarray


def make(kind):
  """The toy of a kind, centred and scaled to fit `kinds.RADIUS`.

  Args:
    kind: one of words.KINDS.
  Returns:
    Toy of K = SLOTS host arrays.
  Raises:
    ValueError: there is no such kind.
  """
  if kind not in words.KINDS:
    raise ValueError(f"toybox: kind is {kind!r}, want one of {words.KINDS}.")
  parts = kinds.PARTS[kind]
  center, radius = _ball(np.concatenate([_hull(part) for part in parts]))
  scale = kinds.RADIUS / radius
  pad = lambda rows: np.asarray(
      [*rows, *[np.zeros_like(rows[0])] * (SLOTS - len(rows))], np.float32
  )
  return Toy(
      count=np.int32(len(parts)),
      shape=pad([_SHAPES.index(part.shape) for part in parts]).astype(np.int32),
      center=pad([
          scale * (np.asarray(part.center) - center) for part in parts
      ]),
      local=pad([
          _rotation(part.turn).T / (scale * np.asarray(part.size)[:, None])
          for part in parts
      ]),
      taper=pad([part.taper for part in parts]),
      color=pad([part.color or (0.0, 0.0, 0.0) for part in parts]),
      painted=pad([float(part.color is None) for part in parts]),
      front=pad([float(part.front) for part in parts]),
  )


def _rotation(turn):
  """f64[3, 3], about x, then y, then z, degrees."""
  matrix = np.eye(3)
  for axis, angle in enumerate(np.radians(turn)):
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    step = np.eye(3)
    step[[i, i, j, j], [i, j, i, j]] = [
        np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    ]
    matrix = step @ matrix
  return matrix


def _hull(part):
  """Points f64[N, 3] on a part's surface, among them its extremes."""
  azimuth, polar = np.meshgrid(
      np.linspace(0, 2 * np.pi, 32, endpoint=False), np.linspace(0, np.pi, 17)
  )
  ball = np.stack([
      np.sin(polar) * np.cos(azimuth),
      np.sin(polar) * np.sin(azimuth),
      np.cos(polar),
  ], -1).reshape(-1, 3)
  if part.shape == "ellipsoid":
    points = ball
  elif part.shape == "box":
    points = np.sign(ball)
  else:
    top = np.sign(ball[:, 2:])
    ring = ball[:, :2] / np.maximum(
        np.linalg.norm(ball[:, :2], axis=1, keepdims=True), _TINY
    )
    points = np.concatenate([
        ring * np.where(top > 0, part.taper, 1.0), top
    ], 1)
  return part.center + (points * part.size) @ _rotation(part.turn).T


def _ball(points):
  """Centre f64[3] and radius of a small ball around points f64[N, 3].

  Badoiu and Clarkson 2003: step towards the farthest point, ever shorter.
  """
  center = (points.max(0) + points.min(0)) / 2
  for step in range(1, 2000):
    away = points - center
    center = center + away[np.argmax((away**2).sum(1))] / (step + 1)
  return center, np.sqrt(((points - center) ** 2).sum(1).max())


def _slope(taper):
  """(a, b) of a frustum's radius a + b z."""
  return (1.0 + taper) / 2, (taper - 1.0) / 2


def _roots(a, b, c):
  """Both t with a t^2 + 2 b t + c = 0, or far away; each [R]."""
  root = b * b - a * c
  a = jnp.where(jnp.abs(a) < _TINY, _TINY, a)
  half = jnp.sqrt(jnp.maximum(root, 0.0))
  return [
      jnp.where(root > 0, (-b + sign * half) / a, _FAR) for sign in (-1.0, 1.0)
  ]


def _meet_ellipsoid(o, d, taper):
  del taper
  a, b, c = jnp.sum(d * d, 0), jnp.sum(o * d, 0), jnp.sum(o * o, 0) - 1.0
  return _roots(a, b, c)[0]


def _meet_box(o, d, taper):
  del taper
  inverse = 1.0 / jnp.where(jnp.abs(d) < _TINY, _TINY, d)
  first, second = (-1.0 - o) * inverse, (1.0 - o) * inverse
  enter = jnp.max(jnp.minimum(first, second), axis=0)
  leave = jnp.min(jnp.maximum(first, second), axis=0)
  return jnp.where(enter < leave, enter, _FAR)


def _meet_frustum(o, d, taper):
  offset, slope = _slope(taper)
  at = offset + slope * o[2]
  side = _roots(
      d[0] ** 2 + d[1] ** 2 - (slope * d[2]) ** 2,
      o[0] * d[0] + o[1] * d[1] - slope * d[2] * at,
      o[0] ** 2 + o[1] ** 2 - at**2,
  )
  nearest = jnp.full_like(o[0], _FAR)
  for t in side:
    is_met = jnp.abs(o[2] + t * d[2]) <= 1.0
    nearest = jnp.minimum(nearest, jnp.where(is_met, t, _FAR))
  inverse = 1.0 / jnp.where(jnp.abs(d[2]) < _TINY, _TINY, d[2])
  for end in (-1.0, 1.0):
    t = (end - o[2]) * inverse
    square = (o[0] + t * d[0]) ** 2 + (o[1] + t * d[1]) ** 2
    is_met = square <= (offset + slope * end) ** 2
    nearest = jnp.minimum(nearest, jnp.where(is_met, t, _FAR))
  return nearest


def trace(toy, origin, direction):
  """The first solid that each ray meets.

  Args:
    toy: Toy.
    origin: f32[3, R].
    direction: f32[3, R].
  Returns:
    (distance f32[R], huge where nothing is met; slot i32[R], then -1).
  """
  meet = (_meet_ellipsoid, _meet_box, _meet_frustum)

  def visit(slot, best):
    local = toy.local[slot]
    # Highest precision: TPUs and GPUs would round the rays to 10 bits.
    o = jnp.matmul(
        local, origin - toy.center[slot][:, None], precision="highest"
    )
    d = jnp.matmul(local, direction, precision="highest")
    distance = lax.switch(toy.shape[slot], meet, o, d, toy.taper[slot])
    is_nearer = (distance < best[0]) & (distance > _NEAR)
    return (
        jnp.where(is_nearer, distance, best[0]),
        jnp.where(is_nearer, slot, best[1]),
    )

  count = origin.shape[1]
  start = jnp.full(count, _FAR, jnp.float32), jnp.full(count, -1, jnp.int32)
  return lax.fori_loop(0, toy.count, visit, start)


def normals(toy, position, slot):
  """Outward unit normals on the surface.

  Args:
    toy: Toy.
    position: f32[R, 3], points on the surface.
    slot: i32[R], the solids that they are on.
  Returns:
    f32[R, 3].
  """
  local = toy.local[slot]
  q = jnp.einsum(
      "rij,rj->ri", local, position - toy.center[slot], precision="highest"
  )
  offset, slope = _slope(toy.taper[slot])
  rim = offset + slope * q[:, 2]
  around = jnp.sqrt(q[:, 0] ** 2 + q[:, 1] ** 2)
  cap = jnp.zeros_like(q).at[:, 2].set(jnp.sign(q[:, 2]))
  side = q.at[:, 2].set(-slope * rim)
  is_cap = jnp.abs(q[:, 2]) - 1.0 > around - rim
  size = jnp.abs(q)
  face = jnp.where(size == jnp.max(size, 1, keepdims=True), jnp.sign(q), 0.0)
  shape = toy.shape[slot][:, None]
  gradient = jnp.select(
      [shape == 0, shape == 1], [q, face], jnp.where(is_cap[:, None], cap, side)
  )
  normal = jnp.einsum("rij,ri->rj", local, gradient, precision="highest")
  length = jnp.linalg.norm(normal, axis=-1, keepdims=True)
  return normal / jnp.maximum(length, _TINY)


def contains(toy, position):
  """Whether points are inside the toy.

  Args:
    toy: Toy.
    position: f32[N, 3], units.
  Returns:
    bool[N].
  """
  toy = jax.tree.map(jnp.asarray, toy)

  def visit(slot, inside):
    q = jnp.matmul(
        position - toy.center[slot], toy.local[slot].T, precision="highest"
    )
    offset, slope = _slope(toy.taper[slot])
    rim = offset + slope * q[:, 2]
    is_in = jnp.stack([
        jnp.sum(q**2, 1) <= 1.0,
        jnp.max(jnp.abs(q), 1) <= 1.0,
        (jnp.abs(q[:, 2]) <= 1.0) & (q[:, 0] ** 2 + q[:, 1] ** 2 <= rim**2),
    ])
    return inside | is_in[toy.shape[slot]]

  return lax.fori_loop(
      0, toy.count, visit, jnp.zeros(position.shape[0], bool)
  )
