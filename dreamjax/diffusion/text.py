"""Words to token ids, by the tokenizer of a model folder.

transformers' CLIPTokenizer does the work: it needs no PyTorch, imports in
under a second, and alone knows every layout of tokenizer files that Stable
Diffusion folders come in. It is imported when the first folder is opened.
"""

from collections.abc import Sequence
import json
import os
import pathlib
import shutil

from absl import logging
import numpy as np

from dreamjax.diffusion import tensors

FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Files that a tokenizer folder may hold."""

START, END = "<|startoftext|>", "<|endoftext|>"


class Tokenizer:
  """Texts to ids; a host object.

  Attributes:
    folder: the files it was read from.
    length: N, ids per text.
    size: number of ids; all are below it.
  """

  def __init__(
      self,
      folder: str | pathlib.Path,
      max_length: int,
      padding: int | None = None,
      words: Sequence[str] = (),
  ):
    """Reads a tokenizer folder.

    Args:
      folder: it holds some of `FILES`; nothing is downloaded.
      max_length: the text encoder's longest sequence.
      padding: id that fills short texts; None takes the folder's.
      words: further tokens; their ids follow the folder's in this order.
    Raises:
      WeightsError: the folder is missing or unreadable, or knows such a word.
    """
    self.folder = pathlib.Path(folder)
    if not any((self.folder / name).exists() for name in FILES[:3]):
      raise tensors.WeightsError(
          f"{self.folder}: no tokenizer there; want vocab.json and merges.txt,"
          " or tokenizer.json."
      )
    # It would tell whoever needs no PyTorch that there is none.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers  # pylint: disable=g-import-not-at-top

    try:
      self._tokenizer = transformers.CLIPTokenizer.from_pretrained(
          str(self.folder), local_files_only=True
      )
    except Exception as error:  # The tokenizers library raises bare ones.
      raise tensors.WeightsError(
          f"{self.folder}: not a CLIP tokenizer: {error}."
      ) from error
    self.length = min(self._tokenizer.model_max_length, max_length)
    self._is_changed = padding is not None or bool(words)
    if padding is not None:
      self._tokenizer.pad_token = self._tokenizer.convert_ids_to_tokens(padding)
    self._add(words)
    vocabulary = self._tokenizer.get_vocab()
    self.size = 1 + max(vocabulary.values())
    added = self._tokenizer.get_added_vocab()
    self._vectors = {}
    for word, first in added.items():
      ids = [first]
      while (following := f"{word}_{len(ids)}") in added:
        ids.append(added[following])
      self._vectors[first] = ids

  def _add(self, words):
    vocabulary = self._tokenizer.get_vocab()
    size = 1 + max(vocabulary.values())
    for i, word in enumerate(words):
      if word in vocabulary:
        raise tensors.WeightsError(
            f"{self.folder}: {word!r} is a token already; an embedding needs"
            " another name."
        )
      self._tokenizer.add_tokens(word)
      if self._tokenizer.convert_tokens_to_ids(word) != size + i:
        raise tensors.WeightsError(
            f"{self.folder}: {word!r} does not get the id {size + i}; the"
            " vocabulary has holes."
        )

  @property
  def start(self) -> int:
    """Id in front of every text."""
    return self._tokenizer.bos_token_id

  @property
  def end(self) -> int:
    """Id behind every text."""
    return self._tokenizer.eos_token_id

  @property
  def padding(self) -> int:
    """Id that fills the rest of the N."""
    return self._tokenizer.pad_token_id

  def __call__(self, texts: Sequence[str]) -> np.ndarray:
    """Ids i32[B, N]: start, text, end, padding.

    A word that was added with words `word_1`, `word_2`, ... beside it stands
    for all of them, as in diffusers. A text that is too long is cut, and a
    warning shows what was lost.
    """
    rows = np.full((len(texts), self.length), self.padding, np.int32)
    for row, text in zip(rows, texts):
      ids = self._tokenizer(text, verbose=False)["input_ids"]
      ids = [i for first in ids for i in self._vectors.get(first, [first])]
      if len(ids) > self.length:
        lost = self._tokenizer.decode(ids[self.length - 1 : -1])
        logging.warning(
            "The prompt is longer than %d tokens; this is cut off: %r",
            self.length,
            lost.strip(),
        )
        ids = ids[: self.length - 1] + ids[-1:]
      row[: len(ids)] = ids
    return rows

  def save(self, folder: str | pathlib.Path) -> None:
    """Copies the tokenizer's files, or writes new ones if it was changed."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if self._is_changed:
      self._tokenizer.save_pretrained(str(folder))
      return
    for name in FILES:
      source = self.folder / name
      if source.exists() and source.resolve() != (folder / name).resolve():
        shutil.copyfile(source, folder / name)


def write(
    folder: str | pathlib.Path,
    vocabulary: dict[str, int],
    merges: Sequence[tuple[str, str]],
    length: int,
) -> None:
  """Writes the files of a CLIP byte-pair tokenizer.

  Args:
    folder: made if missing.
    vocabulary: token to id; the last character of a word carries "</w>".
    merges: pairs of tokens that become one, most urgent first.
    length: N, ids per text.
  Raises:
    ValueError: the start or end token is not in the vocabulary.
  """
  for token in (START, END):
    if token not in vocabulary:
      raise ValueError(f"Tokenizer: the vocabulary lacks {token!r}.")
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  special = {
      "bos_token": START,
      "eos_token": END,
      "unk_token": END,
      "pad_token": END,
  }
  settings = special | {
      "tokenizer_class": "CLIPTokenizer",
      "model_max_length": length,
      "do_lower_case": True,
  }
  for name, values in (
      ("vocab.json", vocabulary),
      ("tokenizer_config.json", settings),
      ("special_tokens_map.json", special),
  ):
    content = json.dumps(values, indent=1, ensure_ascii=False)
    (folder / name).write_text(content + "\n", encoding="utf-8")
  lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
  (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
