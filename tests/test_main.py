"""Tests of dreamjax.main."""

import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from dreamjax import main
from dreamjax import options


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
        (["sample", "--prompt=red mug", "--prediction=epsilon"],
         "the folder says itself"),
        (["sample", "--prompt=red mug", "--lora=/none:0.5"],
         "/none: No such file"),
        (["sample", "--prompt=red mug", "--embedding=/none"],
         "/none: No such file"),
        (["--prompt=red mug", "--workdir=out", "--lora=/none"], "/none"),
        (["sample", "--prompt=red mug", "--lora=a:nan"], "FILE:SCALE"),
        (["export", "--workdir=/none"], "holds no run"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, message, capsys):
  assert run(*words) == main.BAD_INPUT == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1
  assert lines[0].startswith("dreamjax: ") and message in lines[0]


def test_the_record_names_what_is_added_to_the_weights(tmp_path):
  for name in ("style.safetensors", "cat.safetensors"):
    (tmp_path / name).write_bytes(name.encode())
  make = lambda *words: main._additions(
      options.parse(["dreamjax", *words], ["fit"])
  )
  assert make() == ()
  lines = make(
      f"--lora={tmp_path}/style.safetensors:0.8",
      f"--embedding={tmp_path}/cat.safetensors",
      "--prediction=v_prediction",
  )
  assert [line.partition(":")[0] for line in lines] == [
      "lora at 0.8", "embedding", "prediction"
  ]
  digest = hashlib.sha256(b"style.safetensors").hexdigest()
  assert lines[0] == f"lora at 0.8: {digest} (style.safetensors)"
  assert lines[2] == "prediction: v_prediction"


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
