"""The folder of a run: what it belongs to, and who may write there.

    WORKDIR/config.json    the run: prompts, seed, weights, config
    WORKDIR/.lock          held while a process uses the folder
    WORKDIR/checkpoints/   see checkpoint.py

The outputs of a single prompt stand beside these; of several, each prompt has
a folder of its own.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import tempfile
from typing import Any, Iterator, NamedTuple, Sequence
import unicodedata

from dreamjax import checkpoint
from dreamjax import config as config_lib
from dreamjax import config_io
from dreamjax.outputs import files


class Run(NamedTuple):
  """All that determines a run's result.

  Attributes:
    config: the config.
    prompts: the prompts, in the order of the state's leading axis.
    seed: the seed.
    weights: `fingerprint` of the weights.
    additions: what is added to the weights, a readable line with a hash each.
  """

  config: config_lib.Config
  prompts: tuple[str, ...]
  seed: int
  weights: str
  additions: tuple[str, ...] = ()


def fingerprint(*places: str | os.PathLike) -> str:
  """SHA-256 over the weights, configs and vocabulary of a model.

  Args:
    places: folders and files; the name of a file given as such does not count.
  """
  digest = hashlib.sha256()
  for place in map(pathlib.Path, places):
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
      if path.suffix in (".json", ".txt", ".safetensors") and path.is_file():
        name = path.relative_to(place)
        digest.update(f"{name} {checkpoint.sha256(path)}\n".encode())
  return digest.hexdigest()


def read_run(folder: str | os.PathLike) -> Run:
  """The run that a workdir belongs to.

  Raises:
    checkpoint.Refused: there is none, or a newer version wrote it.
  """
  path = pathlib.Path(folder) / "config.json"
  try:
    record = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise checkpoint.Refused(f"{folder} holds no run: {error}.") from error
  checkpoint.check_format(record, path)
  return Run(
      config=config_io.from_dict(record["config"]),
      prompts=tuple(record["prompts"]),
      seed=record["seed"],
      weights=record["weights"],
      additions=tuple(record.get("additions", ())),
  )


def slug(text: str) -> str:
  """A folder name of a prompt: `[a-z0-9-]{1,64}-[0-9a-f]{8}`.

  The words keep it readable, the hash of the exact text keeps it unique.
  """
  digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
  plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
  words = re.sub("[^a-z0-9]+", "-", plain.lower())[:64].strip("-")
  return f"{words or 'prompt'}-{digest[:8]}"


def prompt_folders(
    folder: str | os.PathLike, prompts: Sequence[str]
) -> list[pathlib.Path]:
  """Where each prompt's outputs go: the workdir itself for a single one."""
  folder = pathlib.Path(folder)
  if len(prompts) == 1:
    return [folder]
  return [folder / slug(prompt) for prompt in prompts]


@contextlib.contextmanager
def open_for(
    run: Run, folder: str | os.PathLike, restore: str = "auto"
) -> Iterator[checkpoint.Store]:
  """Locks a folder for a run and gives access to its checkpoints.

  Args:
    run: what is to be run.
    folder: a new or empty folder, one of the same run, or one of a run that
      did not come to its first checkpoint.
    restore: "auto" continues the run that the folder holds; "never" throws
      away its checkpoints and starts anew, whatever run it was; a path (a
      workdir) says where a new run takes its first state from.
  Raises:
    checkpoint.Refused: the folder cannot be written, is in use, is of another
      run, or holds other files; or `restore` has no checkpoints.
  """
  folder = pathlib.Path(folder)
  known = folder / "config.json"
  checkpoints = folder / "checkpoints"
  record = _record(run)
  source = None
  if restore not in ("auto", "never"):
    source = pathlib.Path(restore) / "checkpoints"
    if not source.is_dir():
      raise checkpoint.Refused(f"--restore={restore}: no checkpoints there.")
  with contextlib.ExitStack() as stack:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      with tempfile.TemporaryFile(dir=folder):
        pass  # Only to see that this works, before hours of work.
      stack.enter_context(_lock(folder / ".lock"))
    except OSError as error:
      raise checkpoint.Refused(
          f"workdir {folder} is not writable: {error.strerror}."
      ) from error
    if not known.exists():
      _check_empty(folder)
    elif restore == "never":
      shutil.rmtree(checkpoints, ignore_errors=True)
    elif any(checkpoints.glob("[0-9]*")):  # Else there is nothing to lose.
      _check_same(_record(read_run(folder)), record, folder)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    files.write_bytes(known, text.encode())
    keep = run.config.train.keep_checkpoints
    yield checkpoint.Store(checkpoints, record, keep, source)


def _record(run: Run) -> dict[str, Any]:
  return {
      "format": checkpoint.FORMAT,
      "prompts": list(run.prompts),
      "seed": run.seed,
      "weights": run.weights,
      "additions": list(run.additions),
      "config": config_io.to_dict(run.config),
  }


def _check_empty(folder: pathlib.Path) -> None:
  if any(not path.name.startswith(".") for path in folder.iterdir()):
    raise checkpoint.Refused(
        f"workdir {folder} holds files but no run; name a new folder."
    )


def _check_same(old: Any, new: Any, folder: pathlib.Path) -> None:
  lines = [
      f"\n  {name}: {there!r} there, {here!r} now"
      for name, there, here in config_io.differences(old, new)
  ]
  if lines:
    raise checkpoint.Refused(
        f"workdir {folder} is of another run; nothing was changed. Name another"
        f" --workdir, or start anew with --restore=never.{''.join(lines)}"
    )


@contextlib.contextmanager
def _lock(path: pathlib.Path) -> Iterator[None]:
  """Holds a lock on the file; the system lets go when the process ends."""
  with path.open("a+", encoding="utf-8") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      raise checkpoint.Refused(
          f"workdir {path.parent} is in use by {file.read()}."
      ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    yield
