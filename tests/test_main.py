"""Tests of dreamjax.main."""

import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from dreamjax import commands
from dreamjax import main
from dreamjax import parallel
from dreamjax import plan
from dreamjax import profiling
from dreamjax import step
from dreamjax import train
from dreamjax import workdir


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
        (["plan", "--weights=/none"], "/none: not a folder"),
        (["plan", "--config.guidance.image_size=6"], "Image is 6x6"),
        (["plan", "--memory_gb=-1"], "memory_gb"),
        (["plan", "--devices=3", "--config.train.views=4"], "do not divide"),
        (["profile", "--config.guidance.image_size=6"], "Image is 6x6"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, message, capsys):
  assert run(*words) == commands.BAD_INPUT == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1
  assert lines[0].startswith("dreamjax: ") and message in lines[0]


def test_a_missing_pytorch_is_not_worth_a_line():
  code = (
      "import sys; sys.modules['torch'] = None; from dreamjax import main;"
      " sys.exit(main.main(['', 'sample', '--prompt=red mug', '--lora=/none']))"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True)
  assert done.returncode == commands.BAD_INPUT
  assert done.stderr.splitlines() == [
      b"dreamjax: /none: No such file or directory."
  ]


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


class Exhausted:
  """Stands for train._program: two steps in a call, no memory for the rest."""

  def __call__(self, config, model, where, phase):
    def program(states, prompt, shared):
      if shared.first == 2:
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 1234 bytes."
        )
      shape = (1, config.train.steps_per_dispatch)
      numbers = step.Numbers(*(np.zeros(shape) for _ in step.Numbers._fields))
      numbers = numbers._replace(culprit=np.full(shape, -1))
      states = states._replace(step=states.step + shared.count)
      return states, parallel.shard(numbers, where)

    return program


def test_a_lack_of_memory_is_told_and_leaves_the_checkpoint(
    tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(train, "_program", Exhausted())
  folder = tmp_path / "mug"
  code = run(
      "--prompt=a red mug", f"--workdir={folder}", "--devices=1",
      "--config.train.checkpoint_every=2", "--config.train.preview_every=0",
      "--config.field.kind=mlp",
  )
  assert code == commands.TOO_LARGE == 5
  last = capsys.readouterr().err.splitlines()[-1]
  assert "`dreamjax plan --memory_gb=...`" in last
  assert f"--restore={folder}" in last
  known = workdir.read_run(folder)
  with workdir.open_for(known, folder) as store:
    assert train.restore(known, store).step == 2


def test_a_plan_that_does_not_fit_has_a_code_of_its_own(monkeypatch):
  asked = []

  def report(config, model, noise, where, memory_gb):
    asked.append((config.guidance.scale.end, where.prompts, memory_gb))
    return memory_gb == 2

  monkeypatch.setattr(plan, "report", report)
  words = ["plan", "--memory_gb=2", "--config.guidance.scale=7"]
  assert run(*words) == commands.OK
  words = ["plan", "--prompt=a red mug", "--config.guidance.scale=5"]
  assert run(*words) == commands.TOO_LARGE
  assert asked == [(7, 1, 2), (5, 1, None)]


def test_a_profile_is_printed(monkeypatch, capsys):
  monkeypatch.setattr(
      profiling,
      "report",
      lambda config, pipeline, trace: f"{pipeline.model.image_size} {trace}",
  )
  assert run("profile", "--trace=out") == commands.OK
  assert capsys.readouterr().out == "64 out\n"
