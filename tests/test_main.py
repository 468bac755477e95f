"""Tests of dreamjax.main."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dreamjax import main


def run(*words):
  return main.main(["dreamjax", *words])


def test_help_is_answered_before_jax_is_imported():
  code = (
      "import sys; from dreamjax import main; code = main.main(['', '--help']);"
      " assert 'jax' not in sys.modules; sys.exit(code)"
  )
  began = time.monotonic()
  done = subprocess.run([sys.executable, "-c", code], capture_output=True)
  assert done.returncode == 0
  assert b"--prompt" in done.stdout
  assert time.monotonic() - began < 1.5


@pytest.mark.parametrize(
    "words, message",
    [
        (["--prompt=x"], "give --workdir=FOLDER"),
        (["--promt=x"], "Did you mean"),
        (["--prompt=", "--workdir=out"], "prompt is empty"),
        (["sample", "--prompt=x", "--config=toybx"], "did you mean 'toybox'"),
        (["sample", "--prompt=x", "--config.guidance.scal=1"],
         "did you mean 'scale'"),
        (["sample", "--prompt=x", "--weights=/none"], "/none: not a folder"),
        (["export", "--workdir=/none"], "holds no run"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, message, capsys):
  assert run(*words) == main.BAD_INPUT == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1
  assert lines[0].startswith("dreamjax: ") and message in lines[0]


def test_errors_show_unicode_where_the_locale_is_c():
  environment = os.environ | {
      "LC_ALL": "C",
      "PYTHONUTF8": "0",
      "PYTHONCOERCECLOCALE": "0",
  }
  done = subprocess.run(
      [sys.executable, "-m", "dreamjax", "Käse"],
      env=environment,
      capture_output=True,
  )
  assert done.returncode == 2
  assert b"is no command" in done.stderr


def test_doctor_names_versions_and_kernels(capsys):
  assert run("doctor") == 0
  text = capsys.readouterr().out
  for word in ("Python", "jaxlib", "device 0", "compiled kernels"):
    assert word in text


def test_first_signal_is_a_wish():
  before = signal.getsignal(signal.SIGINT)
  with main.Signals() as signals:
    assert signals.received == 0
    signal.raise_signal(signal.SIGTERM)
    assert signals.received == signal.SIGTERM
  assert signal.getsignal(signal.SIGINT) is before


def test_second_signal_ends_at_once():
  code = (
      "import signal; from dreamjax import main\n"
      "with main.Signals():\n"
      "  signal.raise_signal(signal.SIGINT)\n"
      "  print('still here', flush=True)\n"
      "  signal.raise_signal(signal.SIGINT)\n"
      "  print('never')\n"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True)
  assert done.returncode == 130
  assert done.stdout == b"still here\n"
