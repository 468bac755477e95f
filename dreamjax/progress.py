"""What a run says while it goes on: a bar or lines, and metrics.jsonl."""

import json
import math
import os
import pathlib
import sys
import time
from typing import TextIO

import tqdm

from dreamjax.outputs import files

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
  """Steps done, time left and a few numbers, on a terminal or in a log."""

  def __init__(self, total: int, start: int = 0, file: TextIO | None = None):
    """Starts the clock.

    Args:
      total: steps of the whole run.
      start: steps done before, by an earlier process.
      file: where to; standard error if None. A terminal gets a bar, anything
        else a line now and then.
    """
    self._file = file or sys.stderr
    self._total = total
    self._start = start
    self._step = start
    self._began = time.monotonic()
    self._said = self._began
    self._bar = None
    if self._file.isatty():
      self._bar = tqdm.tqdm(
          total=total,
          initial=start,
          file=self._file,
          unit="step",
          dynamic_ncols=True,
          # Block characters break terminals that are not in UTF-8.
          ascii="utf" not in (self._file.encoding or "").lower(),
      )

  def update(self, step: int, numbers: dict[str, float]) -> None:
    """Shows how many steps are done, and numbers worth a look."""
    shown = " ".join(f"{name} {value:.3g}" for name, value in numbers.items())
    if self._bar:
      self._bar.set_postfix_str(shown, refresh=False)
      self._bar.update(step - self._step)
    self._step = step
    now = time.monotonic()
    is_due = now - self._said >= _SECONDS_BETWEEN_LINES or step == self._total
    if not self._bar and is_due:
      self._said = now
      pace = (now - self._began) / max(step - self._start, 1)
      left = tqdm.tqdm.format_interval((self._total - step) * pace)
      print(
          f"step {step}/{self._total}, {pace:.2f} s/step, {left} left, {shown}",
          file=self._file,
          flush=True,
      )

  def close(self) -> None:
    """Leaves the bar as it is."""
    if self._bar:
      self._bar.close()


class MetricsLog:
  """A file of JSON lines, one per record, in the order of their steps."""

  def __init__(self, path: str | os.PathLike, start: int):
    """Opens the file, dropping what an earlier process wrote beyond `start`.

    Args:
      path: of the file.
      start: steps done; records of later ones will be written again.
    """
    path = pathlib.Path(path)
    kept = b""
    if path.exists():
      lines = path.read_bytes().splitlines(keepends=True)
      kept = b"".join(line for line in lines if _is_until(line, start))
    files.write_bytes(path, kept)
    self._file = path.open("a", encoding="utf-8")

  def write(self, step: int, numbers: dict[str, float]) -> None:
    """Appends a record; it is in the file when this returns."""
    record = {
        name: float(value) if math.isfinite(value) else None  # JSON lacks NaN.
        for name, value in numbers.items()
    }
    self._file.write(json.dumps({"step": step} | record) + "\n")
    self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def _is_until(line: bytes, step: int) -> bool:
  """Whether a line is whole and of a step that is done."""
  try:
    return line.endswith(b"\n") and json.loads(line)["step"] <= step
  except ValueError:
    return False
