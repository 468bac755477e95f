"""Tests of dreamjax.workdir."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from dreamjax import checkpoint
from dreamjax import config
from dreamjax import workdir

RUN = workdir.Run(
    config=config.Config(), prompts=("a red mug",), seed=0, weights="abc"
)
STATE = {"x": np.arange(3, dtype=np.float32)}


def with_steps(steps):
  train = dataclasses.replace(RUN.config.train, steps=steps)
  return RUN._replace(config=dataclasses.replace(RUN.config, train=train))


def contents(folder):
  return {
      path.relative_to(folder): path.read_bytes()
      for path in folder.rglob("*")
      if path.is_file() and path.name != ".lock"
  }


def test_same_run_continues_in_its_folder(tmp_path):
  folder = tmp_path / "new" / "run"
  with workdir.open_for(RUN, folder) as store:
    assert store.restore(STATE) is None
    store.save(5, STATE)
  with workdir.open_for(RUN, folder) as store:
    assert store.restore(STATE)[0] == 5
  assert workdir.read_run(folder) == RUN


def test_folder_of_another_run_is_refused_with_the_differences(tmp_path):
  with workdir.open_for(RUN, tmp_path) as store:
    store.save(5, STATE)
  before = contents(tmp_path)
  other = with_steps(9)._replace(seed=3, prompts=("a blue car",), weights="xyz")
  with pytest.raises(checkpoint.Refused) as error:
    with workdir.open_for(other, tmp_path):
      pass
  message = str(error.value)
  assert "is of another run; nothing was changed" in message
  assert "config.train.steps: 800 there, 9 now" in message
  assert "seed: 0 there, 3 now" in message
  assert "prompts: ['a red mug'] there, ['a blue car'] now" in message
  assert "weights: 'abc' there, 'xyz' now" in message
  assert contents(tmp_path) == before


def test_what_is_added_to_the_weights_belongs_to_the_run(tmp_path):
  with workdir.open_for(RUN, tmp_path) as store:
    store.save(5, STATE)
  other = RUN._replace(additions=("lora at 0.8: 1a2b (style.safetensors)",))
  with pytest.raises(
      checkpoint.Refused, match=r"additions: \[\] there, \['lora at 0.8"
  ):
    with workdir.open_for(other, tmp_path):
      pass
  with workdir.open_for(other, tmp_path, "never") as store:
    store.save(5, STATE)
  assert workdir.read_run(tmp_path) == other


def test_a_run_of_before_there_were_additions_goes_on(tmp_path):
  with workdir.open_for(RUN, tmp_path) as store:
    store.save(5, STATE)
  path = tmp_path / "config.json"
  record = json.loads(path.read_text())
  del record["additions"]
  path.write_text(json.dumps(record))
  with workdir.open_for(RUN, tmp_path) as store:
    assert store.restore(STATE)[0] == 5


def test_a_run_without_a_checkpoint_gives_its_folder_away(tmp_path):
  with workdir.open_for(RUN, tmp_path):
    pass  # It failed: a mistake in the config, perhaps.
  with workdir.open_for(with_steps(9), tmp_path):
    pass
  assert workdir.read_run(tmp_path) == with_steps(9)


def test_never_starts_anew(tmp_path):
  with workdir.open_for(RUN, tmp_path) as store:
    store.save(5, STATE)
  with workdir.open_for(with_steps(9), tmp_path, "never") as store:
    assert store.restore(STATE) is None
  assert workdir.read_run(tmp_path) == with_steps(9)


def test_a_path_gives_a_new_run_its_first_state(tmp_path):
  with workdir.open_for(RUN, tmp_path / "old") as store:
    store.save(5, STATE)
  restore = str(tmp_path / "old")
  with workdir.open_for(with_steps(9), tmp_path / "new", restore) as store:
    assert store.restore(STATE)[0] == 5
    store.save(6, STATE)
  with workdir.open_for(with_steps(9), tmp_path / "new", restore) as store:
    assert store.restore(STATE)[0] == 6
  with pytest.raises(checkpoint.Refused, match="no checkpoints there"):
    with workdir.open_for(RUN, tmp_path / "third", str(tmp_path / "none")):
      pass


def test_folder_with_other_files_is_refused(tmp_path):
  (tmp_path / "thesis.tex").write_text("years of work")
  for restore in ("auto", "never"):
    with pytest.raises(checkpoint.Refused, match="holds files but no run"):
      with workdir.open_for(RUN, tmp_path, restore):
        pass
  assert [str(path) for path in contents(tmp_path)] == ["thesis.tex"]


@pytest.mark.parametrize("folder", ["/sys/dreamjax", "/proc/dreamjax"])
def test_unwritable_folder_is_refused(folder):
  with pytest.raises(checkpoint.Refused, match=f"{folder} is not writable"):
    with workdir.open_for(RUN, folder):
      pass


def test_file_in_place_of_the_folder_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(checkpoint.Refused, match="not writable: File exists"):
    with workdir.open_for(RUN, tmp_path / "file"):
      pass


# Holds the folder that it is given until its input ends.
_HOLD = """
import sys
from dreamjax import config, workdir
run = workdir.Run(config.Config(), ("a red mug",), 0, "abc")
with workdir.open_for(run, sys.argv[1]):
  print("held", flush=True)
  sys.stdin.read()
"""


def _holder(folder):
  """A process that holds a folder."""
  process = subprocess.Popen(
      [sys.executable, "-c", _HOLD, str(folder)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
  )
  assert process.stdout.readline() == "held\n"
  return process


def test_folder_in_use_is_refused_and_names_the_process(tmp_path):
  with _holder(tmp_path) as holder:
    with pytest.raises(
        checkpoint.Refused, match=f"in use by process {holder.pid} on "
    ):
      with workdir.open_for(RUN, tmp_path):
        pass
  with workdir.open_for(RUN, tmp_path):
    pass


def test_lock_ends_with_its_process(tmp_path):
  with _holder(tmp_path) as holder:
    holder.kill()
  with workdir.open_for(RUN, tmp_path):
    pass


def test_read_run_names_its_fault(tmp_path):
  with pytest.raises(checkpoint.Refused, match="holds no run"):
    workdir.read_run(tmp_path)
  (tmp_path / "config.json").write_text('{"format": 99}')
  with pytest.raises(checkpoint.Refused, match="update dreamjax"):
    workdir.read_run(tmp_path)


def test_fingerprint_tells_weights_apart(tmp_path):
  (tmp_path / "unet").mkdir()
  weights = tmp_path / "unet" / "model.safetensors"
  weights.write_bytes(b"0" * 1000)
  first = workdir.fingerprint(tmp_path)
  (tmp_path / "README.md").write_text("words")
  assert workdir.fingerprint(tmp_path) == first
  weights.write_bytes(b"0" * 999 + b"1")
  second = workdir.fingerprint(tmp_path)
  assert second != first
  os.rename(weights, tmp_path / "unet" / "other.safetensors")
  assert workdir.fingerprint(tmp_path) not in (first, second)


def test_fingerprint_of_a_file_is_of_its_content(tmp_path):
  file, words = tmp_path / "a.safetensors", tmp_path / "tokenizer"
  words.mkdir()
  file.write_bytes(b"0")
  (words / "vocab.json").write_bytes(b"0")
  first = workdir.fingerprint(file, words)
  file = file.rename(tmp_path / "b.safetensors")
  assert workdir.fingerprint(file, words) == first
  assert workdir.fingerprint(file) != first
  (words / "vocab.json").write_bytes(b"1")
  second = workdir.fingerprint(file, words)
  file.write_bytes(b"1")
  assert len({first, second, workdir.fingerprint(file, words)}) == 3


def test_slug_keeps_the_words():
  assert workdir.slug("A Café-au-lait, hot!").startswith("a-cafe-au-lait-hot-")
  assert workdir.slug("🧀").startswith("prompt-")


@hypothesis.settings(max_examples=500, deadline=None)
@hypothesis.given(
    strategies.text(strategies.characters(exclude_categories=()))
)
def test_slug_is_always_one_safe_path_component(text):
  assert re.fullmatch("[a-z0-9][a-z0-9-]{0,63}-[0-9a-f]{8}", workdir.slug(text))


def test_slugs_of_different_prompts_differ():
  found = {workdir.slug(text) for text in ("A mug", "a mug", "a  mug", "a-mug")}
  assert len(found) == 4


def test_several_prompts_have_a_folder_each(tmp_path):
  assert workdir.prompt_folders(tmp_path, ["a mug"]) == [tmp_path]
  two = workdir.prompt_folders(tmp_path, ["a mug", "a car"])
  assert two == [tmp_path / workdir.slug(text) for text in ("a mug", "a car")]
