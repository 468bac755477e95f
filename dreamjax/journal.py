"""What a run leaves behind while it goes on, and when it must not go on."""

import os
from typing import Sequence

from absl import logging
import numpy as np

from dreamjax import progress

# Steps in a row that were not finite and end a run.
_PATIENCE = 20
# Steps in a row in which samples were missing that are worth a word.
_LASTING = 100
# Numbers that the bar shows.
_SHOWN = ("opacity", "residual")


class Journal:
  """Progress, metrics.jsonl of each prompt, and the run's troubles.

  Attributes:
    fault: why the run must end, or "".
  """

  def __init__(
      self,
      folders: Sequence[os.PathLike],
      total: int,
      start: int,
      checked: Sequence[str],
  ):
    """Opens the files.

    Args:
      folders: of the P prompts; made where they are missing.
      total: steps of the run.
      start: steps done before.
      checked: names of the arrays that "culprit" is an index into.
    """
    self.fault = ""
    self._checked = checked
    self._progress = progress.Progress(total, start)
    self._logs = []
    for folder in folders:
      folder.mkdir(exist_ok=True)
      self._logs.append(progress.MetricsLog(folder / "metrics.jsonl", start))
    self._bad = np.zeros(len(folders), np.int64)  # In a row, by prompt.
    self._first_bad = ["" for _ in folders]
    self._overflowing = np.zeros(len(folders), np.int64)

  def __enter__(self) -> "Journal":
    return self

  def __exit__(self, *_) -> None:
    self._progress.close()
    for log in self._logs:
      log.close()

  def write(self, start: int, numbers: dict[str, np.ndarray]) -> None:
    """Takes down steps.

    Args:
      start: steps done before them.
      numbers: [P, steps] of each name; "culprit" and "overflow" are
        understood.
    """
    count = numbers["culprit"].shape[1]
    for i in range(count):
      for prompt, log in enumerate(self._logs):
        record = {name: value[prompt, i] for name, value in numbers.items()}
        culprit = record.pop("culprit")
        log.write(start + i + 1, record | {"skipped": culprit >= 0})
        self._watch(prompt, start + i, culprit, record["overflow"])
    self._progress.update(
        start + count, {name: numbers[name].mean() for name in _SHOWN}
    )

  def _watch(self, prompt, step, culprit, overflow):
    """Counts bad steps and missing samples in a row."""
    if culprit < 0:
      self._bad[prompt] = 0
    else:
      if not self._bad[prompt]:
        name = self._checked[culprit]
        self._first_bad[prompt] = f"{name} is not finite at step {step}"
      self._bad[prompt] += 1
      if self._bad[prompt] == _PATIENCE:
        self.fault = (
            f"{self._first_bad[prompt]}, nor was a gradient in the next"
            f" {_PATIENCE - 1} steps."
        )
    self._overflowing[prompt] += 1
    if not overflow:
      self._overflowing[prompt] = 0
    if self._overflowing[prompt] == _LASTING:
      logging.warning(
          "Samples have been missing for %d steps, now %.0f %% of the budget;"
          " raise render.samples_per_ray or occupancy_threshold.",
          _LASTING, 100 * overflow,
      )
