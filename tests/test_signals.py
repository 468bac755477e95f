"""Tests of dreamjax.signals."""

import signal
import subprocess
import sys

from dreamjax import signals


def test_first_signal_is_a_wish():
  before = signal.getsignal(signal.SIGINT)
  with signals.Signals() as wish:
    assert wish.received == 0
    signal.raise_signal(signal.SIGTERM)
    assert wish.received == signal.SIGTERM
  assert signal.getsignal(signal.SIGINT) is before


def test_second_signal_ends_at_once():
  code = (
      "import signal; from dreamjax import signals\n"
      "with signals.Signals():\n"
      "  signal.raise_signal(signal.SIGINT)\n"
      "  print('still here', flush=True)\n"
      "  signal.raise_signal(signal.SIGINT)\n"
      "  print('never')\n"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True)
  assert done.returncode == 130
  assert done.stdout == b"still here\n"
