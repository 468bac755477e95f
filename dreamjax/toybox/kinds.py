"""The shapes of the toys, part by part.

The front is +x, the toy's own left +y, up +z. Sizes are written in whatever
units are convenient: every toy is centred and scaled to fit its ball. Wherever
a part has no colour of its own it has the colour that the caption names.

Front features (eyes, doors, handles' opposite dots) are large and sharp in
contrast, and are there only once: what makes a second one visible.
"""

import math
from typing import NamedTuple

from dreamjax.toybox import words

WHITE = (0.95, 0.95, 0.93)
SNOW = (0.78, 0.86, 0.95)
BLACK = (0.04, 0.04, 0.05)
GRAY = (0.50, 0.52, 0.56)
DARK = (0.14, 0.14, 0.16)
BROWN = (0.36, 0.20, 0.10)
ROOF = (0.40, 0.16, 0.13)
CREAM = (0.92, 0.84, 0.66)
SKIN = (0.93, 0.68, 0.50)
LIPS = (0.62, 0.06, 0.10)
CARROT = (0.98, 0.42, 0.03)
GLASS = (0.45, 0.78, 0.92)
LAMP = (1.00, 0.92, 0.45)
TAIL = (0.45, 0.02, 0.04)

RADIUS = 0.95
"""Of the ball that each toy just fits, units."""


class Part(NamedTuple):
  """One primitive of a toy.

  Attributes:
    shape: "ellipsoid", "box", or "frustum" (about its own z axis).
    center: where it is.
    size: half extents along its own axes.
    color: linear RGB, or None for the caption's colour.
    front: whether it belongs to the front feature.
    turn: degrees about x, then y, then z.
    taper: radius at the top over radius at the bottom (frustum).
  """

  shape: str
  center: tuple[float, float, float]
  size: tuple[float, float, float]
  color: tuple[float, float, float] | None = None
  front: bool = False
  turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
  taper: float = 1.0


def _ball(center, size, color=None, front=False):
  return Part("ellipsoid", center, size, color, front)


def _box(center, size, color=None, front=False, turn=(0, 0, 0)):
  return Part("box", center, size, color, front, turn)


def _rod(start, end, radius, color=None, taper=1.0, front=False):
  """A cylinder, or with a taper a cone, from one point to another."""
  axis = [b - a for a, b in zip(start, end)]
  length = math.hypot(*axis)
  pitch = math.degrees(math.acos(axis[2] / length))
  yaw = math.degrees(math.atan2(axis[1], axis[0]))
  center = tuple((a + b) / 2 for a, b in zip(start, end))
  size = (radius, radius, length / 2)
  return Part("frustum", center, size, color, front, (0, pitch, yaw), taper)


def _sides(make):
  """The part at +y and its mirror image at -y."""
  return [make(1.0), make(-1.0)]


def _mug():
  return [
      _rod((0, 0, -0.62), (0, 0, 0.62), 0.52, taper=1.1),
      _rod((0, 0, 0.60), (0, 0, 0.64), 0.48, BROWN),
      _rod((0, 0.45, 0.32), (0, 0.90, 0.32), 0.10),
      _rod((0, 0.45, -0.28), (0, 0.90, -0.28), 0.10),
      _rod((0, 0.84, -0.37), (0, 0.84, 0.41), 0.10),
      _ball((0.48, 0, 0), (0.12, 0.30, 0.30), WHITE, front=True),
  ]


def _head():
  eyes = _sides(
      lambda s: _ball((0.50, s * 0.24, 0.12), (0.13, 0.16, 0.18), WHITE, True)
  )
  pupils = _sides(
      lambda s: _ball((0.61, s * 0.23, 0.11), (0.07, 0.09, 0.10), BLACK, True)
  )
  ears = _sides(lambda s: _ball((0.02, s * 0.60, 0), (0.12, 0.10, 0.17), SKIN))
  return [
      _ball((0.04, 0, 0), (0.60, 0.57, 0.72), SKIN),
      _ball((-0.10, 0, 0.17), (0.62, 0.63, 0.70)),
      _rod((-0.05, 0, -0.95), (-0.05, 0, -0.5), 0.28, SKIN),
      _ball((0.66, 0, -0.10), (0.14, 0.10, 0.13), SKIN, True),
      _ball((0.50, 0, -0.38), (0.12, 0.26, 0.08), LIPS, True),
      *eyes, *pupils, *ears,
  ]


def _car():
  wheels = [
      _rod((x, s * 0.34, -0.32), (x, s * 0.52, -0.32), 0.24, DARK)
      for x in (0.52, -0.52) for s in (1, -1)
  ]
  lamps = _sides(
      lambda s: _ball((0.88, s * 0.28, -0.02), (0.09, 0.13, 0.13), LAMP, True)
  )
  return [
      _box((0, 0, -0.10), (0.90, 0.44, 0.21)),
      _box((-0.20, 0, 0.27), (0.42, 0.37, 0.20), GLASS),
      _box((-0.22, 0, 0.49), (0.46, 0.40, 0.06)),
      _box((-0.60, 0, 0.25), (0.06, 0.40, 0.22)),
      _box((0.90, 0, -0.16), (0.03, 0.16, 0.10), BLACK, front=True),
      _box((-0.90, 0, -0.02), (0.03, 0.40, 0.09), TAIL),
      *wheels, *lamps,
  ]


def _house():
  windows = _sides(
      lambda s: _box((0.55, s * 0.36, -0.10), (0.03, 0.14, 0.15), GLASS, True)
  )
  return [
      _box((0, 0, -0.25), (0.55, 0.60, 0.45)),
      _box((0, 0, 0.16), (0.53, 0.50, 0.50), ROOF, turn=(45, 0, 0)),
      _box((-0.25, 0.30, 0.68), (0.11, 0.11, 0.28), DARK),
      _box((0.55, 0, -0.40), (0.04, 0.15, 0.30), BROWN, front=True),
      *windows,
  ]


def _snowman():
  eyes = _sides(
      lambda s: _ball((0.24, s * 0.12, 0.53), (0.06, 0.06, 0.07), BLACK, True)
  )
  arms = _sides(
      lambda s: _rod((0, s * 0.25, 0.12), (0, s * 0.72, 0.36), 0.05, BROWN)
  )
  return [
      _ball((0, 0, -0.50), (0.48, 0.48, 0.45), SNOW),
      _ball((0, 0, 0.05), (0.37, 0.37, 0.34), SNOW),
      _ball((0, 0, 0.45), (0.28, 0.28, 0.27), SNOW),
      _rod((0.20, 0, 0.44), (0.66, 0, 0.40), 0.10, CARROT, 0.15, True),
      _ball((0.35, 0, 0.13), (0.06, 0.07, 0.07), BLACK, True),
      _ball((0.36, 0, -0.06), (0.06, 0.07, 0.07), BLACK, True),
      _rod((0, 0, 0.22), (0, 0, 0.33), 0.29),
      _rod((0, 0, 0.63), (0, 0, 0.69), 0.37),
      _rod((0, 0, 0.69), (0, 0, 1.02), 0.24),
      *eyes, *arms,
  ]


def _chair():
  legs = [
      _rod((x, y, -0.85), (x, y, -0.10), 0.08, BROWN)
      for x in (0.38, -0.38) for y in (0.38, -0.38)
  ]
  return [
      _box((0, 0, -0.05), (0.48, 0.48, 0.09)),
      _box((-0.41, 0, 0.42), (0.08, 0.48, 0.45)),
      _ball((-0.32, 0, 0.44), (0.10, 0.30, 0.28), WHITE, front=True),
      *legs,
  ]


def _teapot():
  return [
      _ball((0, 0, -0.05), (0.55, 0.55, 0.48)),
      _rod((0, 0, -0.55), (0, 0, -0.40), 0.36),
      _rod((0, 0.38, -0.18), (0, 0.92, 0.34), 0.17, taper=0.45),
      _rod((0, -0.46, 0.22), (0, -0.84, 0.22), 0.08),
      _rod((0, -0.44, -0.24), (0, -0.84, -0.24), 0.08),
      _rod((0, -0.80, -0.31), (0, -0.80, 0.29), 0.08),
      _ball((0, 0, 0.38), (0.33, 0.33, 0.10)),
      _ball((0, 0, 0.52), (0.10, 0.10, 0.10), BLACK),
      _ball((0.50, 0, -0.05), (0.10, 0.27, 0.27), WHITE, front=True),
      _ball((0.58, 0, -0.05), (0.06, 0.11, 0.11), LAMP, front=True),
  ]


def _mushroom():
  ring = [math.radians(72 * k) for k in range(5)]
  dots = [
      _ball((0.56 * math.cos(a), 0.56 * math.sin(a), 0.38), (0.17, 0.17, 0.15),
            WHITE)
      for a in ring
  ]
  return [
      _rod((0, 0, -0.75), (0, 0, 0.15), 0.30, CREAM, 0.75),
      _ball((0, 0, 0.18), (0.78, 0.78, 0.44)),
      _ball((0, 0, 0.58), (0.20, 0.20, 0.10), WHITE),
      *dots,
  ]


def _rocket():
  fins = [
      _box((0.38 * math.cos(a), 0.38 * math.sin(a), -0.55), (0.22, 0.05, 0.24),
           turn=(0, 0, math.degrees(a)))
      for a in (math.radians(60 + 120 * k) for k in range(3))
  ]
  return [
      _rod((0, 0, -0.68), (0, 0, 0.38), 0.33, WHITE),
      _rod((0, 0, 0.38), (0, 0, 0.98), 0.36, taper=0.05),
      _rod((0, 0, -0.86), (0, 0, -0.66), 0.28, DARK, 0.7),
      _ball((0.27, 0, 0.08), (0.12, 0.23, 0.23), DARK, front=True),
      _ball((0.32, 0, 0.08), (0.12, 0.17, 0.17), GLASS, front=True),
      *fins,
  ]


def _duck():
  eyes = _sides(
      lambda s: _ball((0.55, s * 0.20, 0.50), (0.10, 0.10, 0.11), BLACK, True)
  )
  wings = _sides(
      lambda s: _ball((-0.12, s * 0.42, -0.20), (0.36, 0.12, 0.22))
  )
  return [
      _ball((-0.05, 0, -0.26), (0.66, 0.46, 0.40)),
      _ball((0.35, 0, 0.38), (0.34, 0.33, 0.34)),
      _ball((0.76, 0, 0.32), (0.22, 0.20, 0.09), CARROT, front=True),
      _rod((-0.50, 0, -0.15), (-0.90, 0, 0.22), 0.24, taper=0.15),
      *wings, *eyes,
  ]


def _robot():
  eyes = _sides(
      lambda s: _ball((0.29, s * 0.13, 0.52), (0.06, 0.08, 0.09), LAMP, True)
  )
  arms = _sides(
      lambda s: _rod((0, s * 0.50, 0.10), (0.08, s * 0.54, -0.42), 0.10, GRAY)
  )
  legs = _sides(
      lambda s: _rod((0, s * 0.20, -0.88), (0, s * 0.20, -0.50), 0.13, GRAY)
  )
  return [
      _box((0, 0, -0.15), (0.28, 0.42, 0.40)),
      _box((0, 0, 0.50), (0.26, 0.34, 0.25), GRAY),
      _box((0.26, 0, 0.50), (0.03, 0.28, 0.18), BLACK, front=True),
      _box((0.28, 0, -0.10), (0.03, 0.25, 0.20), LAMP, front=True),
      _rod((0, 0, 0.72), (0, 0, 0.90), 0.05, DARK),
      _ball((0, 0, 0.92), (0.10, 0.10, 0.10)),
      *eyes, *arms, *legs,
  ]


def _tree():
  return [
      _rod((0, 0, -0.90), (0, 0, -0.40), 0.16, BROWN),
      _rod((0, 0, -0.48), (0, 0, 0.22), 0.64, taper=0.25),
      _rod((0, 0, -0.02), (0, 0, 0.60), 0.50, taper=0.22),
      _rod((0, 0, 0.40), (0, 0, 0.96), 0.36, taper=0.03),
  ]


_MAKERS = (
    _mug, _head, _car, _house, _snowman, _chair,
    _teapot, _mushroom, _rocket, _duck, _robot, _tree,
)

PARTS = {kind: make() for kind, make in zip(words.KINDS, _MAKERS, strict=True)}
"""kind -> its parts, before centring and scaling."""
