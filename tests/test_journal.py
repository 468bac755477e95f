"""What a run leaves behind, and what makes it end."""

import json

import numpy as np
import pytest

from dreamjax import journal as journal_lib

CHECKED = ["image", "latent"]


def numbers(culprit, overflow=0.0, prompts=1):
  """[P, steps] of each name; `culprit` is one per step, of the first prompt."""
  shape = (prompts, len(culprit))
  values = np.full(shape, -1)
  values[0] = culprit
  return {
      "opacity": np.full(shape, 0.25, np.float32),
      "residual": np.full(shape, 2.0, np.float32),
      "overflow": np.broadcast_to(np.float32(overflow), shape),
      "culprit": values,
  }


def journal(*folders, total=1000, start=0):
  return journal_lib.Journal(folders, total, start, CHECKED)


def test_each_prompt_has_its_file(tmp_path):
  with journal(tmp_path / "a", tmp_path / "b", start=4) as book:
    book.write(4, numbers([-1, 1], prompts=2))
  lines = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(line) for line in lines] == [
      {"step": step, "opacity": 0.25, "residual": 2.0, "overflow": 0.0,
       "skipped": skipped}
      for step, skipped in ((5, 0.0), (6, 1.0))
  ]
  other = (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(line)["skipped"] for line in other] == [0.0, 0.0]


def test_twenty_bad_steps_in_a_row_are_a_fault(tmp_path):
  with journal(tmp_path) as book:
    book.write(0, numbers([0, 0, -1, 1] + 15 * [0]))
    assert not book.fault
    book.write(19, numbers(3 * [0]))
    assert not book.fault
    book.write(22, numbers([0]))
  assert "latent is not finite at step 3, nor" in book.fault


def test_a_good_step_in_between_is_no_fault(tmp_path):
  with journal(tmp_path) as book:
    book.write(0, numbers(19 * [0] + [-1] + 19 * [0]))
  assert not book.fault


def test_bad_steps_of_different_prompts_do_not_add_up(tmp_path):
  with journal(tmp_path / "a", tmp_path / "b") as book:
    bad = numbers(10 * [0] + 10 * [-1], prompts=2)
    bad["culprit"][1] = 10 * [-1] + 10 * [0]
    book.write(0, bad)
  assert not book.fault


@pytest.mark.parametrize("steps, times", [(99, 0), (100, 1), (300, 1)])
def test_lasting_overflow_is_told_once(tmp_path, caplog, steps, times):
  with journal(tmp_path) as book:
    for step in range(steps):
      book.write(step, numbers([-1], overflow=0.125))
  assert caplog.text.count("Samples have been missing for 100 steps") == times
  assert times == 0 or "12 % of the budget" in caplog.text


def test_overflow_that_comes_and_goes_is_not_told(tmp_path, caplog):
  with journal(tmp_path) as book:
    for step in range(300):
      book.write(step, numbers([-1], overflow=0.1 * (step % 90 > 0)))
  assert not caplog.text
