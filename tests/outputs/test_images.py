"""Pictures hold the values they were given, and refuse what is no picture."""

import numpy as np
from PIL import Image
import pytest

from dreamjax.outputs import images


def test_a_file_holds_the_rounded_values(tmp_path):
  image = np.linspace(0, 1, 2 * 4 * 3).reshape(2, 4, 3)
  images.save_image(tmp_path / "a.png", image)
  with Image.open(tmp_path / "a.png") as stored:
    np.testing.assert_array_equal(np.asarray(stored), np.round(255 * image))


def test_values_outside_the_range_are_clipped():
  np.testing.assert_array_equal(
      images.to_bytes(np.array([[-0.5, 0.5, 1.5]])), [[0, 128, 255]]
  )


def test_a_second_picture_replaces_the_first_and_leaves_nothing(tmp_path):
  for value in (0.0, 1.0):
    images.save_image(tmp_path / "a.png", np.full((2, 2, 3), value))
  with Image.open(tmp_path / "a.png") as stored:
    assert np.asarray(stored).min() == 255
  assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_broken_picture_leaves_the_old_file(tmp_path):
  images.save_image(tmp_path / "a.png", np.zeros((2, 2, 3)))
  before = (tmp_path / "a.png").read_bytes()
  with pytest.raises(ValueError, match="NaN or infinite"):
    images.save_image(tmp_path / "a.png", np.full((2, 2, 3), np.nan))
  assert (tmp_path / "a.png").read_bytes() == before


def test_every_image_is_in_the_grid_unchanged():
  batch = np.random.default_rng(0).random((5, 8, 6, 3), np.float32)
  grid = images.image_grid(batch, 3, cell_size=8)
  windows = np.lib.stride_tricks.sliding_window_view(grid, (16, 12, 3))
  for image in batch:
    large = image.repeat(2, axis=0).repeat(2, axis=1)
    assert (windows == large).all(axis=(-3, -2, -1)).any()


def test_labels_add_dark_words_above_the_images():
  batch = np.ones((4, 128, 128, 3), np.float32)
  plain = images.image_grid(batch, 2)
  worded = images.image_grid(batch, 2, ["one", "two", "three", "four"])
  assert plain.min() == 1.0
  assert worded.min() < 0.2
  assert worded.shape[0] > plain.shape[0]
  assert worded.shape[1] == plain.shape[1]


def test_row_and_column_labels_and_a_title_frame_the_images():
  batch = np.ones((4, 128, 128, 3), np.float32)
  plain = images.image_grid(batch, 2)
  framed = images.image_grid(
      batch, 2, column_labels=["a", "b"], row_labels=["c", "d"], title="e"
  )
  assert framed.shape[0] > plain.shape[0]
  assert framed.shape[1] > plain.shape[1]


def test_words_beyond_latin_do_not_stop_a_picture():
  batch = np.ones((1, 128, 128, 3), np.float32)
  images.image_grid(batch, 1, ["une tasse \u7ea2\u8272 \U0001f600"])


@pytest.mark.parametrize(
    "shape, columns, labels, message",
    [
        ((2, 4, 4, 4), 1, (), r"want \[N, H, W, 3\]"),
        ((0, 4, 4, 3), 1, (), r"want \[N, H, W, 3\]"),
        ((2, 4, 4, 3), 0, (), "columns is 0"),
        ((2, 4, 4, 3), 1, ("a",), "1 labels, want 0 or 2"),
    ],
)
def test_what_is_no_grid_is_refused(shape, columns, labels, message):
  with pytest.raises(ValueError, match=message):
    images.image_grid(np.zeros(shape), columns, labels)
