"""Words that textual inversion learned (Gal et al. 2022).

A file holds one word as one or several vectors of the text tower's width E.
diffusers stores it under its name; AUTOMATIC1111's web UI stores it as
"emb_params", and the name is the file's.
"""

from collections.abc import Sequence
import pathlib

import numpy as np

from dreamjax.diffusion import keys
from dreamjax.diffusion import tensors

NAMELESS = "emb_params"
"""The web UI's key."""


def read(
    paths: Sequence[str | pathlib.Path], width: int
) -> tuple[list[str], np.ndarray]:
  """Words and their vectors.

  A word with several vectors becomes `word`, `word_1`, `word_2`, ...

  Args:
    paths: safetensors files.
    width: E.
  Returns:
    K words, and f32[K, E].
  Raises:
    WeightsError: a file is unusable, made for another width, or a name is
      there twice.
  """
  words, vectors = [], [np.zeros((0, width), np.float32)]
  taken = set()
  for path in map(pathlib.Path, paths):
    word, table = _read_one(path, width)
    own = [word, *(f"{word}_{i}" for i in range(1, len(table)))]
    # The one that would follow would be taken for this word's last vector.
    reserved = {*own, f"{word}_{len(own)}"}
    if reserved & taken:
      raise tensors.WeightsError(
          f"{path}: another embedding has the name {min(reserved & taken)!r}."
      )
    taken |= reserved
    words += own
    vectors.append(table)
  return words, np.concatenate(vectors)


def _read_one(path, width):
  arrays = tensors.read(path)
  if len(arrays) != 1:
    raise tensors.WeightsError(
        f"{path}: {len(arrays)} tensors, want one: {NAMELESS}, or a word's name"
        " (files with clip_g and clip_l are for Stable Diffusion XL)."
    )
  (name, table), = arrays.items()
  word = path.stem if name == NAMELESS else name
  if not word or word != word.strip():
    raise tensors.WeightsError(f"{path}: {word!r} is no name for a word.")
  if table.ndim == 1:
    table = table[None]
  if table.ndim != 2 or not len(table) or table.shape[1] != width:
    raise tensors.WeightsError(
        f"{path}: {name} is {table.shape}, want vectors of {width}, the width"
        " of these weights' text tower (768 in Stable Diffusion 1.x, 1024 in"
        " 2.x)."
    )
  return word, keys.finite(table, f"{path}: {name}")
