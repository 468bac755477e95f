"""Checkpoints: a run's state on disk, whole or not at all.

    FOLDER/00000200/
      state/           the arrays, written by Orbax
      meta.json        format, step, the run, and every array's type
      manifest.json    size and SHA-256 of every file above

A checkpoint is written under a hidden name, synced and renamed, so a process
that dies leaves the ones before it. Orbax notices a missing file but no
changed bit (it restores wrong numbers), hence the manifest, which is checked
before a checkpoint is used.
"""

import hashlib
import json
import os
import pathlib
import shutil
from typing import Any, Iterable

from absl import logging
import jax
import numpy as np

from dreamjax import config_io

FORMAT = 1

Tree = Any


class Refused(ValueError):
  """A folder that cannot serve this run; nothing in it was changed."""


def check_format(record: dict[str, Any], path: pathlib.Path) -> None:
  """Raises Refused for a file that a newer version of dreamjax wrote."""
  if record["format"] > FORMAT:
    raise Refused(
        f"{path} has format {record['format']}, this version knows {FORMAT};"
        " update dreamjax."
    )


class Store:
  """The checkpoints of one run, in a folder that this process alone uses."""

  def __init__(
      self,
      folder: pathlib.Path,
      run: dict[str, Any],
      keep: int,
      source: pathlib.Path | None = None,
  ):
    """Takes over the folder; unfinished checkpoints in it are removed.

    Args:
      folder: where the checkpoints are, or will be.
      run: JSON tree that says what is run, kept with every checkpoint.
      keep: how many checkpoints are kept.
      source: folder of another run's checkpoints, from which a run without
        its own takes its first state.
    """
    self._folder = folder
    self._run = run
    self._keep = keep
    self._source = source
    folder.mkdir(exist_ok=True)
    for leftover in folder.glob(".*"):
      shutil.rmtree(leftover)

  def save(self, step: int, state: Tree) -> None:
    """Writes a checkpoint, then removes the oldest beyond those to be kept.

    Args:
      step: steps done.
      state: pytree of host arrays.
    Raises:
      FloatingPointError: an array is not finite; nothing is written.
      OSError: the disk is full or gone; earlier checkpoints are intact.
    """
    from orbax.checkpoint import v1 as ocp  # Slow, so only here.

    for name, array in _leaves(state):
      is_float = jax.dtypes.issubdtype(array.dtype, np.floating)
      if is_float and not np.all(np.isfinite(array)):
        raise FloatingPointError(
            f"step {step}: {name} is not finite; it is not saved."
        )
    final = self._folder / f"{step:08d}"
    temporary = self._folder / f".{final.name}.new"
    meta = {
        "format": FORMAT,
        "step": step,
        "run": self._run,
        "arrays": _types(state),
    }
    try:
      temporary.mkdir()
      ocp.save((temporary / "state").absolute(), state)
      _write_json(temporary / "meta.json", meta)
      _write_json(temporary / "manifest.json", _manifest(temporary))
      _sync([*temporary.rglob("*"), temporary])
      _remove(final)  # A restarted run makes the same step again.
      temporary.rename(final)
      _sync([self._folder])
    finally:
      shutil.rmtree(temporary, ignore_errors=True)
    for old in _steps(self._folder)[self._keep :]:
      _remove(old)

  def restore(self, template: Tree) -> tuple[int, Tree] | None:
    """The newest intact state; damaged ones are passed over with a warning.

    Args:
      template: pytree with the shapes and dtypes to expect.
    Returns:
      (steps done, state as host arrays), or None for a run that starts anew.
    Raises:
      Refused: a newer version wrote the checkpoint, its arrays are not those
        of the template, or `source` holds none.
    """
    for path in _steps(self._folder):
      if meta := _intact(path):
        return meta["step"], _load(path, meta, template)
    if self._source is None:
      return None
    for path in _steps(self._source):
      if meta := _intact(path):
        return meta["step"], _load(path, meta, template)
    raise Refused(f"{self._source} holds no intact checkpoint.")


def sha256(path: pathlib.Path) -> str:
  """SHA-256 of a file, in hexadecimal digits."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _load(path: pathlib.Path, meta: dict[str, Any], template: Tree) -> Tree:
  from orbax.checkpoint import v1 as ocp  # Slow, so only here.

  check_format(meta, path)
  # Orbax would cast another dtype in silence.
  different = config_io.differences(meta["arrays"], _types(template))
  if different:
    name, there, here = different[0]
    raise Refused(
        f"checkpoint {path} does not fit: {name} is {there}, want {here}"
        f" ({len(different)} arrays differ)."
    )
  arrays = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), template)
  return ocp.load((path / "state").absolute(), arrays)


def _intact(path: pathlib.Path) -> dict[str, Any] | None:
  """The checkpoint's meta data, or None and a warning if it is damaged."""
  try:
    manifest = json.loads((path / "manifest.json").read_bytes())
    damaged = config_io.differences(manifest, _manifest(path))
    if not damaged:
      return json.loads((path / "meta.json").read_bytes())
    fault = f"{damaged[0][0]} was changed or lost"
  except (OSError, ValueError) as error:
    fault = str(error)
  logging.warning("Checkpoint %s is damaged and is not used: %s.", path, fault)
  return None


def _manifest(folder: pathlib.Path) -> dict[str, Any]:
  return {
      str(path.relative_to(folder)): [path.stat().st_size, sha256(path)]
      for path in sorted(folder.rglob("*"))
      if path.is_file() and path.name != "manifest.json"
  }


def _steps(folder: pathlib.Path) -> list[pathlib.Path]:
  """Checkpoints of a folder, the newest first."""
  found = [path for path in folder.glob("*") if path.name.isdecimal()]
  return sorted(found, key=lambda path: int(path.name), reverse=True)


def _remove(path: pathlib.Path) -> None:
  """Removes a checkpoint as a whole, even if the process dies half way."""
  if path.exists():
    hidden = path.with_name(f".{path.name}.old")
    path.rename(hidden)
    shutil.rmtree(hidden)


def _sync(paths: Iterable[pathlib.Path]) -> None:
  """Flushes files and folders to the disk."""
  for path in paths:
    descriptor = os.open(path, os.O_RDONLY)
    try:
      os.fsync(descriptor)
    finally:
      os.close(descriptor)


def _write_json(path: pathlib.Path, tree: Any) -> None:
  path.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def _leaves(tree: Tree) -> list[tuple[str, Any]]:
  return [
      (jax.tree_util.keystr(path), leaf)
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  ]


def _types(tree: Tree) -> dict[str, str]:
  return {
      name: f"{array.dtype}{list(array.shape)}" for name, array in _leaves(tree)
  }
