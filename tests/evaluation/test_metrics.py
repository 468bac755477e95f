"""Metrics know the answer where it can be computed by hand."""

import numpy as np
import pytest

from dreamjax.evaluation import metrics

ELEVATIONS, AZIMUTHS, SIZE = 2, 12, 16
BODY, FACE = (0.2, 0.5, 0.8), (0.9, 0.8, 0.1)


def toy(face_at=(0,), turn=0, arm=True):
  """A square toy with an arm on its left and a face, seen from all sides.

  Args:
    face_at: azimuth steps from which a face is seen.
    turn: azimuth steps by which it is turned, counter-clockwise.
    arm: whether it has the arm.
  Returns:
    (image, mask, face mask), each [E, A, ...], on white.
  """
  shape = (ELEVATIONS, AZIMUTHS, SIZE, SIZE)
  image, mask = np.ones(shape + (3,), np.float32), np.zeros(shape, bool)
  face = np.zeros(shape, bool)
  mask[..., 4:12, 4:12] = True
  for azimuth in range(AZIMUTHS):
    # From the front its left is on the right of the image.
    step = (azimuth - turn) % AZIMUTHS
    reach = round(3 * np.cos(2 * np.pi * step / AZIMUTHS)) if arm else 0
    columns = slice(12, 12 + reach) if reach > 0 else slice(4 + reach, 4)
    mask[:, azimuth, 7:9, columns] = True
    if step in face_at:
      face[:, azimuth, 6:9, 6:10] = True
  image[mask] = BODY
  image[face] = FACE
  return image, mask, face


def judged(**change):
  truth, truth_mask, face = toy()
  image, mask, _ = toy(**change)
  return metrics.judge(truth, truth_mask, face, image, mask)


def test_the_iou_of_shifted_squares_is_known():
  first, second = np.zeros((2, 8, 8), bool)
  first[0:4, 0:4] = True
  second[0:4, 2:6] = True
  assert metrics.silhouette_iou(first, second) == pytest.approx(8 / 24)
  assert metrics.silhouette_iou(first, first) == 1.0
  assert metrics.silhouette_iou(first & False, second & False) == 1.0
  assert metrics.silhouette_iou(first, ~first) == 0.0


def test_the_psnr_of_a_constant_error_is_known():
  truth, mask = np.zeros((8, 8, 3)), np.zeros((8, 8), bool)
  mask[2:4] = True
  image = np.where(mask[..., None], 0.1, 0.9)  # outside nobody looks
  assert metrics.psnr(truth, image, mask) == pytest.approx(20.0)
  assert metrics.psnr(truth, truth, mask) == np.inf


def test_an_affine_change_of_colors_is_undone():
  rng = np.random.default_rng(0)
  target = rng.random((50, 3))
  matrix = np.array([
      [0.8, 0.1, 0.0, 0.05], [0.0, 0.7, 0.1, 0.1], [0.1, 0.0, 0.9, -0.02]
  ])
  source = target @ matrix[:, :3].T + matrix[:, 3]
  fitted = metrics.apply_colors(metrics.fit_colors(source, target), source)
  np.testing.assert_allclose(fitted, target, atol=1e-9)


def test_one_color_gives_a_map_that_moves_only_it():
  source = np.tile([0.5, 0.5, 0.5], (9, 1))
  matrix = metrics.fit_colors(source, source + [0.1, 0.0, 0.0])
  np.testing.assert_allclose(
      metrics.apply_colors(matrix, source), source + [0.1, 0, 0]
  )
  np.testing.assert_allclose(matrix[1:], np.eye(3, 4)[1:], atol=1e-12)


def test_no_pixels_in_common_leave_colors_alone():
  matrix = metrics.fit_colors(np.zeros((0, 3)), np.zeros((0, 3)))
  np.testing.assert_array_equal(matrix, np.eye(3, 4))


def test_colors_are_matched_on_the_object_only():
  truth, mask, _ = toy()
  image = np.where(mask[..., None], 0.5 * truth + 0.2, truth)
  matched = metrics.match_colors(truth, image, mask, mask)
  np.testing.assert_allclose(matched, truth, atol=1e-6)


def test_the_truth_itself_is_perfect():
  result = judged()
  assert result.iou == result.iou_best == 1.0
  assert result.psnr == result.psnr_raw == np.inf
  assert (result.yaw_degrees, result.turned) == (0.0, False)
  assert (result.front, result.behind) == (1.0, 0.0)
  assert result.feature_right is True
  assert result.back_as_front == 0.0


@pytest.mark.parametrize(
    "turn, degrees", [(3, 90.0), (6, 180.0), (9, -90.0), (11, -30.0)]
)
def test_a_turned_object_is_found_and_named(turn, degrees):
  result = judged(turn=turn)
  assert result.yaw_degrees == degrees
  assert result.turned == (abs(degrees) > 45)
  assert result.iou_best == 1.0 > result.iou
  assert result.psnr_best == np.inf > result.psnr
  assert result.feature_right is False


def test_a_round_object_is_not_called_turned():
  truth, mask, none = toy(face_at=(), arm=False)
  rows = np.linspace(0.3, 1, SIZE)[:, None, None]
  truth = np.where(mask[..., None], rows * truth, truth)
  noise = np.random.default_rng(0).normal(0, 0.02, truth.shape)
  image = np.clip(truth + noise, 0, 1)
  result = metrics.judge(truth, mask, none, image, mask)
  assert not result.turned
  assert result.feature_right is None
  assert np.isnan(result.front)


def test_two_faces_are_seen_in_front_and_behind():
  result = judged(face_at=(0, 6))
  assert result.front == pytest.approx(1.0, abs=0.1)
  assert result.behind == pytest.approx(1.0, abs=0.1)
  assert result.feature_right is False


def test_a_missing_face_is_seen_though_the_silhouette_is_perfect():
  result = judged(face_at=())
  assert result.iou == 1.0
  assert result.front == pytest.approx(0.0, abs=0.1)
  assert result.feature_right is False


def test_a_pale_face_gets_its_share():
  truth, mask, face = toy()
  pale = truth.copy()
  pale[face] = 0.75 * np.array(FACE) + 0.25 * np.array(BODY)
  front, behind = metrics.feature_strength(
      truth, mask, face, pale, mask
  )
  assert front == pytest.approx(0.75, abs=1e-6)
  assert behind == pytest.approx(0.0, abs=1e-6)


def test_a_face_seen_aslant_does_not_need_to_be_seen():
  truth, mask, face = toy()
  face[:, 1, 7, 7] = True  # 1 pixel of 12: a sliver
  image = truth.copy()
  image[:, 1] = np.where(mask[:, 1, ..., None], 0.0, 1.0)
  front, _ = metrics.feature_strength(truth, mask, face, image, mask)
  assert front == pytest.approx(1.0, abs=0.1)


def test_noise_on_a_plain_body_does_not_hide_the_face():
  truth, mask, face = toy()
  noise = np.random.default_rng(0).normal(0, 0.03, truth.shape)
  dark = np.where(mask[..., None], 0.8 * truth + noise, truth)
  front, behind = metrics.feature_strength(truth, mask, face, dark, mask)
  assert front > 0.7  # a fit without ridge says 0: the face looks lost
  assert behind == pytest.approx(0.0, abs=0.1)


def test_the_front_shown_from_everywhere_is_the_floor_and_looks_like_it():
  truth, truth_mask, face = toy()
  image = np.repeat(truth[:, :1], AZIMUTHS, axis=1)
  mask = np.repeat(truth_mask[:, :1], AZIMUTHS, axis=1)
  result = metrics.judge(truth, truth_mask, face, image, mask)
  assert result.back_as_front == 1.0
  assert result.psnr == pytest.approx(result.floor)


def test_the_nearest_view_is_the_one_it_was_copied_from():
  truth, _, _ = toy()
  truth = truth * np.linspace(0.5, 1, AZIMUTHS)[:, None, None, None]
  order = np.random.default_rng(0).permutation(AZIMUTHS)
  nearest = metrics.nearest_azimuth(truth, truth[:, order])
  np.testing.assert_array_equal(nearest, [order] * ELEVATIONS)


def test_shapes_that_do_not_fit_are_refused():
  truth, mask, face = toy()
  with pytest.raises(ValueError, match="judge: shapes are"):
    metrics.judge(truth, mask, face, truth[:, :6], mask)
  odd = [x[:, :5] for x in (truth, mask, face, truth, mask)]
  with pytest.raises(ValueError, match="5 azimuths, want an even number"):
    metrics.judge(*odd)
