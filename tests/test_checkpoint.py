"""Tests of dreamjax.checkpoint."""

import json
import pathlib
import random
import shutil
import subprocess
import sys
import textwrap
import time
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dreamjax import checkpoint


class State(NamedTuple):
  step: Any
  params: Any
  optimizer: Any


def state_at(step):
  """A state whose every number tells the step."""
  params = {
      "table": np.full((2, 8, 3), step, np.float32),
      "half": np.full((2, 4), step, jnp.bfloat16),
      "mask": np.full((2, 5), step % 256, np.uint8),
  }
  count = np.full((2,), step, np.int32)
  adam = optax.ScaleByAdamState(count, mu=params["table"], nu=params["half"])
  return State(count, params, (adam, optax.EmptyState()))


def assert_is_step(state, step):
  wanted = state_at(step)
  assert type(state) is State
  assert type(state.optimizer[0]) is optax.ScaleByAdamState
  for name in ("table", "half", "mask"):
    found = state.params[name]
    assert isinstance(found, np.ndarray)
    assert found.dtype == wanted.params[name].dtype
    np.testing.assert_array_equal(found, wanted.params[name])
  np.testing.assert_array_equal(state.step, wanted.step)
  np.testing.assert_array_equal(state.optimizer[0].mu, wanted.optimizer[0].mu)


def make_store(tmp_path, keep=3, source=None):
  return checkpoint.Store(tmp_path / "checkpoints", {"seed": 0}, keep, source)


def steps(tmp_path):
  return sorted(path.name for path in (tmp_path / "checkpoints").iterdir())


def test_state_survives_exactly(tmp_path):
  store = make_store(tmp_path)
  store.save(7, state_at(7))
  step, state = make_store(tmp_path).restore(state_at(0))
  assert step == 7
  assert_is_step(state, 7)


def test_every_bit_pattern_of_a_float_survives(tmp_path):
  tiny = np.array([1e-45, -0.0, np.pi, np.finfo(np.float32).max], np.float32)
  store = make_store(tmp_path)
  store.save(1, {"x": tiny})
  _, state = store.restore({"x": np.zeros(4, np.float32)})
  assert state["x"].tobytes() == tiny.tobytes()


def test_new_run_has_nothing_to_restore(tmp_path):
  assert make_store(tmp_path).restore(state_at(0)) is None


def test_only_the_newest_are_kept(tmp_path):
  store = make_store(tmp_path, keep=2)
  for step in (5, 90, 100):
    store.save(step, state_at(step))
  assert steps(tmp_path) == ["00000090", "00000100"]
  assert store.restore(state_at(0))[0] == 100


def test_a_step_can_be_saved_again(tmp_path):
  store = make_store(tmp_path)
  store.save(5, state_at(4))
  store.save(5, state_at(5))
  assert_is_step(store.restore(state_at(0))[1], 5)


def test_nonfinite_state_is_not_saved(tmp_path):
  store = make_store(tmp_path)
  store.save(1, state_at(1))
  bad = state_at(2)
  bad.params["table"][1, 2, 0] = np.nan
  with pytest.raises(FloatingPointError, match=r"table.*is not finite"):
    store.save(2, bad)
  bad = state_at(2)
  bad.params["half"][0, 0] = np.inf
  with pytest.raises(FloatingPointError, match="half"):
    store.save(2, bad)
  assert steps(tmp_path) == ["00000001"]


def damage(path, rng, kind):
  """Flips a bit of, cuts short or deletes one random file."""
  file = rng.choice(sorted(p for p in path.rglob("*") if p.is_file()))
  data = bytearray(file.read_bytes())
  if kind == "delete":
    file.unlink()
  elif kind == "cut" or not data:
    file.write_bytes(data[: len(data) // 2] if data else b"x")
  else:
    position = rng.randrange(len(data))
    data[position] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
  return file


def test_any_damage_is_noticed_and_the_step_before_is_used(tmp_path, caplog):
  store = make_store(tmp_path)
  store.save(1, state_at(1))
  store.save(2, state_at(2))
  newest = tmp_path / "checkpoints" / "00000002"
  intact = tmp_path / "intact"
  shutil.copytree(newest, intact)
  rng = random.Random(0)
  for trial in range(60):
    file = damage(newest, rng, ("flip", "flip", "cut", "delete")[trial % 4])
    caplog.clear()
    step, state = store.restore(state_at(0))
    # Whitespace of the manifest may change, never what is restored.
    if step == 2:
      assert file.name == "manifest.json"
      assert_is_step(state, 2)
    else:
      assert_is_step(state, 1)
      assert "is damaged and is not used" in caplog.text
    shutil.rmtree(newest)
    shutil.copytree(intact, newest)
  assert store.restore(state_at(0))[0] == 2


def test_strange_folders_are_passed_over(tmp_path):
  store = make_store(tmp_path)
  store.save(3, state_at(3))
  (tmp_path / "checkpoints" / "9").mkdir()
  (tmp_path / "checkpoints" / "notes").mkdir()
  assert store.restore(state_at(0))[0] == 3


def test_other_shapes_and_dtypes_are_refused_by_name(tmp_path):
  store = make_store(tmp_path)
  store.save(3, state_at(3))
  wider = state_at(0)
  wider.params["table"] = np.zeros((2, 9, 3), np.float32)
  with pytest.raises(
      checkpoint.Refused, match=r"table.*float32\[2, 8, 3\], want float32\[2, 9"
  ):
    store.restore(wider)
  other = state_at(0)
  other.params["mask"] = np.zeros((2, 5), np.int32)
  with pytest.raises(checkpoint.Refused, match="mask.* is uint8.*want int32"):
    store.restore(other)
  fewer = state_at(0)
  del fewer.params["mask"]
  with pytest.raises(checkpoint.Refused, match="mask.*want missing"):
    store.restore(fewer)


def test_newer_formats_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoint, "FORMAT", 99)
  make_store(tmp_path).save(3, state_at(3))
  monkeypatch.undo()
  with pytest.raises(checkpoint.Refused, match="format 99.*update dreamjax"):
    make_store(tmp_path).restore(state_at(0))


def test_meta_says_what_was_run(tmp_path):
  make_store(tmp_path).save(3, state_at(3))
  path = tmp_path / "checkpoints" / "00000003" / "meta.json"
  meta = json.loads(path.read_text())
  assert (meta["step"], meta["run"]) == (3, {"seed": 0})


def test_new_run_starts_from_the_source(tmp_path):
  make_store(tmp_path).save(3, state_at(3))
  (tmp_path / "new").mkdir()
  store = make_store(tmp_path / "new", source=tmp_path / "checkpoints")
  assert store.restore(state_at(0))[0] == 3
  store.save(4, state_at(4))
  assert store.restore(state_at(0))[0] == 4


def test_empty_source_is_refused(tmp_path):
  (tmp_path / "other").mkdir()
  store = make_store(tmp_path, source=tmp_path / "other")
  with pytest.raises(checkpoint.Refused, match="no intact checkpoint"):
    store.restore(state_at(0))


def test_failed_save_leaves_the_ones_before(tmp_path, monkeypatch):
  store = make_store(tmp_path)
  store.save(1, state_at(1))

  def full(*_, **__):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(pathlib.Path, "write_text", full)
  with pytest.raises(OSError, match="No space left"):
    store.save(2, state_at(2))
  monkeypatch.undo()
  assert steps(tmp_path) == ["00000001"]
  assert store.restore(state_at(0))[0] == 1


_SAVE_FOREVER = """
    import pathlib, sys
    sys.path.insert(0, {tests!r})
    import test_checkpoint
    from dreamjax import checkpoint
    store = checkpoint.Store(pathlib.Path({folder!r}), {{}}, keep=2)
    found = store.restore(test_checkpoint.state_at(0))
    step = found[0] if found else 0
    while True:
      step += 1
      store.save(step, test_checkpoint.state_at(step))
      print(step, flush=True)
"""


def test_sigkill_at_any_moment_leaves_a_restorable_state(tmp_path):
  code = textwrap.dedent(_SAVE_FOREVER).format(
      tests=str(pathlib.Path(__file__).parent),
      folder=str(tmp_path / "checkpoints"),
  )
  rng = random.Random(1)
  seen = 0
  for _ in range(5):
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert int(process.stdout.readline()) == seen + 1
    time.sleep(rng.uniform(0.0, 0.15))
    process.kill()
    told = [seen + 1, *map(int, process.communicate()[0].split())]
    seen, state = make_store(tmp_path).restore(state_at(0))
    # The last one may have been finished but not told.
    assert seen in (told[-1], told[-1] + 1)
    assert_is_step(state, seen)
