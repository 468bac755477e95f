"""Pictures: PNG files and labelled grids, on which people judge a run.

Images are f32[H, W, 3], RGB in [0, 1], row 0 at the top; a file stores
round(255 x).
"""

import io

import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from dreamjax.outputs import files

_INK = (30, 30, 30)
_GAP = 4  # pixels between cells
_FONT_SIZE = 14


def to_bytes(image):
  """The pixels of a file: round(255 x), values outside [0, 1] clipped.

  Args:
    image: f32[..., 3].
  Returns:
    u8[..., 3].
  Raises:
    ValueError: a value is NaN or infinite, or the last axis is not 3.
  """
  image = np.asarray(image, np.float32)
  if image.ndim < 1 or image.shape[-1] != 3:
    raise ValueError(f"image: shape is {image.shape}, want [..., 3].")
  if not np.isfinite(image).all():
    raise ValueError(
        f"image: {np.count_nonzero(~np.isfinite(image))} of {image.size}"
        " values are NaN or infinite; the scene itself went bad."
    )
  return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def save_image(path, image):
  """Writes a PNG file atomically.

  Args:
    path: str or Path; the folder must exist.
    image: f32[H, W, 3] in [0, 1].
  """
  buffer = io.BytesIO()
  Image.fromarray(to_bytes(image)).save(buffer, "PNG")
  files.write_bytes(path, buffer.getvalue())


def enlarge(images, size):
  """Images whose smaller side is at least `size`, by repeating pixels.

  Args:
    images: f32[N, H, W, 3].
    size: pixels.
  Returns:
    f32[N, k H, k W, 3] with the smallest whole factor k that is enough.
  """
  factor = max(-(-size // min(images.shape[1:3])), 1)
  return images.repeat(factor, axis=1).repeat(factor, axis=2)


def image_grid(
    images, columns, labels=(), *, column_labels=(), row_labels=(), title="",
    cell_size=128
):
  """Lays images out in rows, with words, on white.

  Args:
    images: f32[N, H, W, 3], filled row by row; the last row may be short.
    columns: images per row.
    labels: N strings, one above each image; or none.
    column_labels: strings above the columns; or none.
    row_labels: strings left of the rows; or none.
    title: a line above everything.
    cell_size: images with a smaller side are enlarged by the smallest whole
      factor that reaches it; pixels stay squares.
  Returns:
    f32[height, width, 3] in [0, 1].
  Raises:
    ValueError: not a batch of RGB images, or a number of labels does not fit.
  """
  images = np.asarray(images, np.float32)
  if images.ndim != 4 or images.shape[-1] != 3 or not len(images):
    raise ValueError(
        f"image_grid: images have shape {images.shape}, want [N, H, W, 3]."
    )
  if columns < 1:
    raise ValueError(f"image_grid: columns is {columns}, want 1 or more.")
  rows = -(-len(images) // columns)
  for name, words, count in (
      ("labels", labels, len(images)),
      ("column_labels", column_labels, columns),
      ("row_labels", row_labels, rows),
  ):
    if len(words) not in (0, count):
      raise ValueError(f"image_grid: {len(words)} {name}, want 0 or {count}.")

  images = enlarge(images, cell_size)
  height, width = images.shape[1:3]
  cells = list(images)
  if labels:
    strips = _strips(labels, width)
    cells = [np.concatenate(pair) for pair in zip(strips, cells)]
  blank = np.ones_like(cells[0])
  cells += [blank] * (rows * columns - len(cells))
  lines = [
      _join(cells[row * columns : (row + 1) * columns], axis=1)
      for row in range(rows)
  ]
  if column_labels:
    lines.insert(0, _join(_strips(column_labels, width), axis=1))
  if row_labels:
    words = ("",) * bool(column_labels) + tuple(row_labels)
    side = max(_text_width(word) for word in words) + 2 * _GAP
    lines = [
        _join([_label(word, side, line.shape[0]), line], axis=1)
        for word, line in zip(words, lines)
    ]
  if title:
    lines.insert(0, _strips([title], lines[0].shape[1])[0])
  return np.pad(
      _join(lines, axis=0), ((_GAP, _GAP), (_GAP, _GAP), (0, 0)),
      constant_values=1.0,
  )


def _join(parts, axis):
  """Parts side by side (axis 1) or stacked (axis 0), a white gap between."""
  shape = list(parts[0].shape)
  shape[axis] = _GAP
  spaced = [parts[0]]
  for part in parts[1:]:
    spaced += [np.ones(shape, np.float32), part]
  return np.concatenate(spaced, axis=axis)


def _font():
  return ImageFont.load_default(_FONT_SIZE)


def _text_width(text):
  return int(np.ceil(_font().getlength(text)))


def _wrap(text, width):
  """Text broken into lines that fit `width` pixels, between words."""
  lines = [""]
  for word in text.split():
    longer = f"{lines[-1]} {word}".strip()
    if lines[-1] and _text_width(longer) > width:
      lines.append(word)
    else:
      lines[-1] = longer
  return "\n".join(lines)


def _label(text, width, height):
  """Dark words, centred on a white f32[height, width, 3]."""
  canvas = Image.new("RGB", (width, height), "white")
  ImageDraw.Draw(canvas).text(
      (width / 2, height / 2), text, fill=_INK, font=_font(), anchor="mm",
      align="center",
  )
  return np.asarray(canvas, np.float32) / 255


def _strips(texts, width):
  """Equally high strips, `width` wide, one for each text."""
  texts = [_wrap(text, width) for text in texts]
  lines = max(text.count("\n") + 1 for text in texts)
  height = lines * (_FONT_SIZE + 5)
  return [_label(text, width, height) for text in texts]
