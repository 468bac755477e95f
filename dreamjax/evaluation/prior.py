"""What the toybox's prior draws, judged by the nearest true picture.

  python -m dreamjax.evaluation.prior --weights=FOLDER --out=prior.png

draws every kind from every named side and says how often kind, colour and
side are those of the caption. Without this a number about distilled objects
cannot be read: an object is no better than what the prior believes.
"""

from typing import NamedTuple, Sequence

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from dreamjax import cameras
from dreamjax import shading
from dreamjax.diffusion import sample
from dreamjax.diffusion import weights
from dreamjax.outputs import images
from dreamjax.outputs import sheet
from dreamjax.toybox import solids
from dreamjax.toybox import words
from dreamjax.toybox import world
from dreamjax import toybox

_STEPS = 25
_SIZE = 32  # pixels; enough to tell the toys apart
_TURN_DEGREES = 15.0
_ELEVATIONS_DEGREES = (0.0, 20.0, 40.0)
_OVERHEAD_DEGREES = (65.0, 80.0)
_AMBIENT = 0.55


class Gallery(NamedTuple):
  """True pictures in layers; G of them.

  Attributes:
    fixed: f32[G, S, S, 3], see world.Truth.
    painted: f32[G, S, S].
    opacity: f32[G, S, S].
    kind: i64[G], index into words.KINDS.
    view: i64[G], index into words.VIEWS, or behind its end for overhead.
  """

  fixed: np.ndarray
  painted: np.ndarray
  opacity: np.ndarray
  kind: np.ndarray
  view: np.ndarray


def gallery() -> Gallery:
  """Every kind from all around at several elevations, in soft light."""
  azimuth = np.arange(0.0, 360.0, _TURN_DEGREES)
  side = np.round(azimuth / 45.0).astype(int) % len(words.VIEWS)
  places = [
      (a, e, v)
      for e in _ELEVATIONS_DEGREES
      for a, v in zip(azimuth, side)
  ] + [
      (a, e, len(words.VIEWS)) for e in _OVERHEAD_DEGREES for a in azimuth
  ]
  turn, rise, view = map(np.array, zip(*places))
  camera = sheet.orbit(
      np.radians(turn).astype(np.float32), np.radians(rise).astype(np.float32)
  )
  light = soft_light(camera)
  render = jax.jit(world.render, static_argnums=3)
  truths = [
      render(solids.make(kind), camera, light, _SIZE) for kind in words.KINDS
  ]
  join = lambda name: np.concatenate([
      np.asarray(getattr(truth, name)) for truth in truths
  ])
  return Gallery(
      join("fixed"), join("painted"), join("opacity"),
      np.repeat(np.arange(len(words.KINDS)), len(view)),
      np.tile(view, len(words.KINDS)),
  )


def soft_light(camera: cameras.Camera) -> shading.Light:
  """Light from above the camera."""
  count = camera.fov.shape[0]
  return shading.Light(
      position=camera.origin + jnp.array([0.0, 0.0, 1.0]),
      finite=jnp.zeros(count),
      ambient=jnp.full(count, _AMBIENT),
      textureless=jnp.zeros(count, bool),
  )


def classify(image: np.ndarray, known: Gallery) -> tuple[int, int, int]:
  """Kind, colour and view of the true picture that is nearest.

  Args:
    image: f32[H, H, 3], H a multiple of the gallery's size.
    known: the gallery.
  Returns:
    Indices into words.KINDS, words.COLORS and words.VIEWS (or its length, for
    overhead).
  """
  factor = image.shape[0] // _SIZE
  small = image.reshape(_SIZE, factor, _SIZE, factor, 3).mean((1, 3))
  corners = small[[0, 0, -1, -1], [0, -1, 0, -1]]
  rest = known.fixed + (1 - known.opacity)[..., None] * np.median(corners, 0)
  rest = rest - small
  # |rest + painted c|^2 for all colours c from three sums over pixels.
  square = np.square(rest).sum((1, 2, 3))
  cross = np.einsum("gijc,gij->gc", rest, known.painted)
  weight = np.square(known.painted).sum((1, 2))
  color = np.array(list(words.COLORS.values()))
  error = (
      square[:, None]
      + 2 * cross @ color.T
      + weight[:, None] * np.square(color).sum(1)
  )
  index, best = np.unravel_index(error.argmin(), error.shape)
  return int(known.kind[index]), int(best), int(known.view[index])


def accuracy(pipeline, seed: int, scale: float):
  """Draws every kind from every side and classifies what came out.

  Args:
    pipeline: diffusion.model.StableDiffusion.
    seed: of the noise.
    scale: guidance scale.
  Returns:
    (bool[K, V + 1, 3], whether kind, colour and view are right;
    f32[K, V + 1, S, S, 3], what was drawn).
  """
  views = (*words.VIEWS, words.OVERHEAD)
  colors = list(words.COLORS)
  asked = [
      (kind, (kind + view) % len(colors), view)
      for kind in range(len(words.KINDS))
      for view in range(len(views))
  ]
  texts = [
      words.caption(words.KINDS[kind], colors[color], views[view])
      for kind, color, view in asked
  ]
  drawn = sample.draw(
      pipeline, texts, seed=seed, steps=_STEPS, scale=scale
  )
  known = gallery()
  right = np.array([
      np.equal(classify(image, known), wanted)
      for image, wanted in zip(drawn, asked)
  ])
  shape = (len(words.KINDS), len(views))
  return right.reshape(*shape, 3), drawn.reshape(*shape, *drawn.shape[1:])


def _table(right):
  """Percentages by kind; toys without a front have no sides."""
  faced = np.array([solids.make(kind).front.any() for kind in words.KINDS])
  rows = [(kind, *share) for kind, share in zip(words.KINDS, right.mean(1))]
  rows.append(("all", *right[..., :2].mean((0, 1)), right[faced, :, 2].mean()))
  lines = [f"{'':12s}  kind colour  side"]
  for (name, *shares), has_side in zip(rows, [*faced, True]):
    cells = [f"{100 * share:4.0f} %" for share in shares]
    cells[2] = cells[2] if has_side else "     -"
    lines.append(f"{name:12s}" + "".join(cells))
  return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
  """Prints a table and writes the picture."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown words: {' '.join(argv[1:])}")
  pipeline = weights.load(flags.FLAGS.weights)
  right, drawn = accuracy(pipeline, flags.FLAGS.seed, flags.FLAGS.scale)
  print(_table(right))
  grid = images.image_grid(
      drawn.reshape(-1, *drawn.shape[2:]), drawn.shape[1],
      column_labels=(*words.VIEWS, words.OVERHEAD), row_labels=words.KINDS,
      cell_size=64,
  )
  images.save_image(flags.FLAGS.out, grid)
  print(f"{flags.FLAGS.out}: what the prior draws")


def define_flags() -> None:
  """Defines the flags of this program; they are global, hence not at import."""
  flags.DEFINE_string("weights", str(toybox.WEIGHTS), "Model folder.")
  flags.DEFINE_string("out", "prior.png", "Picture of what was drawn.")
  flags.DEFINE_integer("seed", 0, "Seed of the noise.")
  flags.DEFINE_float("scale", 4.0, "Guidance scale.")


if __name__ == "__main__":
  define_flags()
  app.run(main)
