"""SIGINT and SIGTERM as a wish to stop."""

import os
import signal


class Signals:
  """Turns the first SIGINT or SIGTERM into a wish; a second one ends at once.

  Attributes:
    received: number of the first signal, or 0.
  """

  def __init__(self):
    self.received = 0
    self._previous = {}

  def __enter__(self) -> "Signals":
    for number in (signal.SIGINT, signal.SIGTERM):
      self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _handle(self, number, _) -> None:
    if self.received:
      os._exit(128 + number)  # Python's own way out would wait for XLA.
    self.received = number
