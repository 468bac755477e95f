"""How close renderings are to the truth, as numbers.

Notation: images are arranged in E elevations and A azimuths, counter-clockwise
in equal steps from the front, so that turning an object is rolling axis 1.
All images stand on the same plain background, RGB in [0, 1]; masks are bool
and true on the object.
"""

import math
from typing import NamedTuple

import numpy as np

# Views that show at least this share of the largest area of the front feature
# are the ones that must show it.
_VISIBLE_SHARE = 0.25
# An object counts as turned if the truth turned by more than this angle is
# nearer to it than the truth as it stands, by more than this margin (round
# objects have no yaw: there chance decides by hundredths of a dB).
_TURNED_DEGREES = 45.0
_TURNED_DECIBEL = 0.5
# Between "with the feature" (1) and "without" (0).
_FEATURE_THRESHOLD = 0.5
_FEATURE_RIDGE = 0.01  # the square of a tenth of the colour range
# Sectors of azimuth around the front and around the back.
_FRONT_DEGREES = 60.0
_BACK_DEGREES = 140.0


class Judgement(NamedTuple):
  """How one result compares with its truth; means over all views.

  Attributes:
    iou: of the silhouettes, as the object stands.
    iou_best: of the silhouettes, at the yaw where it is largest.
    psnr: on the union of the masks after one colour fit, dB.
    psnr_best: the same, at the yaw where it is largest.
    psnr_raw: as `psnr`, without the colour fit.
    yaw_degrees: by which the object is turned according to `psnr_best`,
      counter-clockwise, in (-180, 180].
    turned: whether that is an orientation failure.
    front: strength of the front feature in front, see feature_strength.
    behind: its strength behind.
    feature_right: whether it is present in front and absent behind; None for
      objects without a front.
    back_as_front: share of the views from behind whose nearest true view is
      one from the front.
    floor: `psnr` of the truth's front view shown from everywhere, dB.
  """

  iou: float
  iou_best: float
  psnr: float
  psnr_best: float
  psnr_raw: float
  yaw_degrees: float
  turned: bool
  front: float
  behind: float
  feature_right: bool | None
  back_as_front: float
  floor: float


def silhouette_iou(first, second):
  """Intersection over union of masks; 1 where both are empty.

  Args:
    first: bool[..., H, W].
    second: bool[..., H, W].
  Returns:
    f64[...], in [0, 1].
  """
  both = (first & second).sum((-2, -1))
  union = (first | second).sum((-2, -1))
  return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def fit_colors(source, target, ridge=0.0):
  """The affine colour map that brings `source` closest to `target`.

  Least squares for the difference to the identity, of the smallest norm:
  where the colours leave the map open (a plain object) it changes nothing.

  Args:
    source: f32[N, 3].
    target: f32[N, 3].
    ridge: penalty on that difference, as if so many pixels per pixel spoke for
      the identity; keeps noise on a plain colour from flattening all others.
  Returns:
    f64[3, 4], for apply_colors.
  """
  source = np.asarray(source, np.float64)
  columns = np.concatenate([source, np.ones((len(source), 1))], axis=1)
  pull = np.sqrt(ridge * len(source)) * np.eye(4)
  change, *_ = np.linalg.lstsq(
      np.concatenate([columns, pull]),
      np.concatenate([target - source, np.zeros((4, 3))]),
      rcond=1e-6,
  )
  return np.eye(3, 4) + change.T


def apply_colors(matrix, image):
  """Colours after an affine map, clipped.

  Args:
    matrix: f64[3, 4].
    image: f32[..., 3].
  Returns:
    f64[..., 3] in [0, 1].
  """
  return np.clip(image @ matrix[:, :3].T + matrix[:, 3], 0, 1)


def match_colors(truth, image, mask, fit_on, ridge=0.0):
  """The images after one colour map per object, fitted over all views.

  Args:
    truth: f32[E, A, H, W, 3].
    image: f32[E, A, H, W, 3].
    mask: bool[E, A, H, W]; the background outside it stays as it is.
    fit_on: bool[E, A, H, W], the pixels that decide.
    ridge: see fit_colors.
  Returns:
    f64[E, A, H, W, 3].
  """
  matrix = fit_colors(image[fit_on], truth[fit_on], ridge)
  return np.where(mask[..., None], apply_colors(matrix, image), image)


def psnr(truth, image, mask):
  """Peak signal-to-noise ratio inside a mask, in dB.

  Args:
    truth: f32[..., H, W, 3].
    image: f32[..., H, W, 3].
    mask: bool[..., H, W].
  Returns:
    f64[...]; infinite where nothing differs.
  """
  square = np.square(np.asarray(truth, np.float64) - image).mean(-1)
  error = (square * mask).sum((-2, -1)) / np.maximum(mask.sum((-2, -1)), 1)
  with np.errstate(divide="ignore"):
    return -10 * np.log10(error)


def over_yaws(score, *views):
  """A score after the object was turned by 0, 1, ... A - 1 azimuth steps.

  Args:
    score: function of the turned views.
    *views: arrays [E, A, ...] of the object.
  Returns:
    f64[A]; the first is the score as it stands, entry k that of the object
    turned back (clockwise) by k steps.
  """
  return np.array([
      score(*(np.roll(view, -step, axis=1) for view in views))
      for step in range(views[0].shape[1])
  ])


def feature_strength(truth, truth_mask, feature, image, mask):
  """How much of the front feature is seen in front, and how much behind.

  Where the truth shows the feature, say a face, from azimuth a, an object with
  a second face on its back shows that from a + 180 degrees in the same pixels.
  There the truth has two colours, with the feature and without: an image gets
  1 for the first, 0 for the second, and what lies between in proportion,
  weighted by contrast. Colours are matched on the other pixels first.

  Args:
    truth: f32[E, A, H, W, 3], A even.
    truth_mask: bool[E, A, H, W].
    feature: bool[E, A, H, W], where the truth shows its front feature.
    image: f32[E, A, H, W, 3].
    mask: bool[E, A, H, W].
  Returns:
    (front, behind): floats, about 1 and 0 if all is well, 1 and 1 for an
    object with two fronts, 0 and 0 for one without; NaN if the truth has no
    feature or looks the same from behind.
  """
  area = feature.sum((-2, -1))
  seen = feature & (area >= _VISIBLE_SHARE * area.max())[..., None, None]
  half = truth.shape[1] // 2
  with_it = np.asarray(truth, np.float64)
  without = np.roll(with_it, half, axis=1)
  axis = (with_it - without)[seen]
  contrast = np.square(axis).sum()
  if not contrast > 0:
    return np.nan, np.nan
  others = truth_mask & mask & ~feature & ~np.roll(feature, half, axis=1)
  matched = match_colors(truth, image, mask, others, _FEATURE_RIDGE)
  return tuple(
      float(((view - without)[seen] * axis).sum() / contrast)
      for view in (matched, np.roll(matched, half, axis=1))
  )


def nearest_azimuth(truth, image):
  """For each view the azimuth from which the truth looks most like it.

  Args:
    truth: f32[E, A, H, W, 3].
    image: f32[E, A, H, W, 3].
  Returns:
    i64[E, A], index of the azimuth, at the same elevation.
  """
  shape = truth.shape[:2] + (-1,)
  truth, image = truth.reshape(shape), image.reshape(shape)
  error = np.square(image[:, :, None] - truth[:, None]).mean(-1)
  return error.argmin(axis=-1)


def judge(truth, truth_mask, feature, image, mask):
  """Compares the views of one object with the truth.

  Args:
    truth: f32[E, A, H, W, 3].
    truth_mask: bool[E, A, H, W].
    feature: bool[E, A, H, W], where the truth shows its front feature.
    image: f32[E, A, H, W, 3].
    mask: bool[E, A, H, W].
  Returns:
    Judgement.
  Raises:
    ValueError: the shapes do not fit together, or A is odd.
  """
  shape = truth_mask.shape
  wanted = (shape + (3,), shape, shape, shape + (3,), shape)
  arrays = (truth, truth_mask, feature, image, mask)
  if tuple(x.shape for x in arrays) != wanted or len(shape) != 4:
    raise ValueError(
        f"judge: shapes are {[x.shape for x in arrays]}, want"
        " [E, A, H, W, 3], [E, A, H, W] twice, and both again."
    )
  if shape[1] % 2:
    raise ValueError(f"judge: {shape[1]} azimuths, want an even number.")

  def fitted_psnr(image, mask):
    matched = match_colors(truth, image, mask, truth_mask & mask)
    return psnr(truth, matched, truth_mask | mask).mean()

  iou = over_yaws(lambda x: silhouette_iou(truth_mask, x).mean(), mask)
  fitted = over_yaws(fitted_psnr, image, mask)
  step = int(fitted.argmax())
  yaw = 180.0 - (180.0 - 360.0 * step / shape[1]) % 360.0
  matched = match_colors(truth, image, mask, truth_mask & mask)
  front, behind = feature_strength(truth, truth_mask, feature, image, mask)
  everywhere = np.broadcast_to(truth[:, :1], truth.shape)
  seen_everywhere = np.broadcast_to(truth_mask[:, :1], shape)
  return Judgement(
      iou=float(iou[0]),
      iou_best=float(iou.max()),
      psnr=float(fitted[0]),
      psnr_best=float(fitted[step]),
      psnr_raw=float(psnr(truth, image, truth_mask | mask).mean()),
      yaw_degrees=yaw,
      turned=bool(
          abs(yaw) > _TURNED_DEGREES
          and fitted[step] > fitted[0] + _TURNED_DECIBEL
      ),
      front=front,
      behind=behind,
      feature_right=None if math.isnan(front) else (
          behind < _FEATURE_THRESHOLD <= front
      ),
      back_as_front=back_as_front(truth, matched),
      floor=float(fitted_psnr(everywhere, seen_everywhere)),
  )


def back_as_front(truth, image):
  """Share of the views from behind that look most like a true front view."""
  azimuths = truth.shape[1]
  degrees = 360.0 * np.arange(azimuths) / azimuths
  from_front = np.minimum(degrees, 360.0 - degrees)
  nearest = from_front[nearest_azimuth(truth, image)]
  return float(
      (nearest[:, from_front >= _BACK_DEGREES] < _FRONT_DEGREES).mean()
  )
