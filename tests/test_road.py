"""The whole road: from a prompt to every file, by the command line."""

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from dreamjax import commands
from dreamjax import main

# A few steps of a small scene: what is tested is the road, not the result.
SMALL = (
    "--config.train.steps=6",
    "--config.train.steps_per_dispatch=2",
    "--config.train.checkpoint_every=2",
    "--config.train.preview_every=4",
    "--config.train.views=2",
    "--config.render.resolution=32",
    "--config.render.occupancy_resolution=16",
    "--config.output.image_size=32",
    "--config.output.turntable_frames=3",
    "--config.output.mesh_resolution=24",
    "--config.output.mesh_density=1",
)
WRITTEN = {
    "config.json", "metrics.jsonl", "progress.png", "sheet.png", "mesh.glb",
    "mesh.obj",
}


def make(folder, *words):
  return main.main([
      "dreamjax", "--prompt=a red mug", f"--workdir={folder}", *SMALL, *words
  ])


def digests(folder):
  """SHA-256 of every file that the main command writes."""
  return {
      path.name: hashlib.sha256(path.read_bytes()).hexdigest()
      for path in pathlib.Path(folder).iterdir()
      if path.is_file() and path.stem not in (".lock", "evaluation")
  }


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  folder = tmp_path_factory.mktemp("road") / "mug"
  assert make(folder) == commands.OK
  return folder


def test_a_prompt_becomes_every_file(done):
  names = set(digests(done))
  assert WRITTEN <= names
  assert names & {"turntable.mp4", "turntable.webp"}
  lines = (done / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_same_command_elsewhere_gives_the_same_bytes(done, tmp_path):
  assert make(tmp_path / "again") == commands.OK
  assert digests(tmp_path / "again") == digests(done)


def test_finished_run_is_judged_against_its_truth(done, capsys):
  assert main.main(["dreamjax", "evaluate", f"--workdir={done}"]) == commands.OK
  assert "silhouette IoU" in capsys.readouterr().out
  record = json.loads((done / "evaluation.json").read_text())
  assert record["prompt"] == "a red mug"
  assert 0 < record["iou"] < 1


def test_another_run_is_refused_and_nothing_is_lost(done, capsys):
  before = digests(done)
  assert make(done, "--seed=1") == commands.BAD_INPUT
  message = capsys.readouterr().err
  assert "another run" in message and "seed: 0 there, 1 now" in message
  assert digests(done) == before


def test_unknown_words_are_answered_at_once(tmp_path, capsys):
  words = ["dreamjax", "--prompt=a red dragon", f"--workdir={tmp_path / 'x'}"]
  assert main.main(words) == commands.BAD_INPUT
  message = capsys.readouterr().err
  assert "'dragon' is no word of the toybox" in message
  assert "--weights=DIR" in message
  assert not (tmp_path / "x").exists()


def test_killed_run_goes_on_bit_for_bit(done, tmp_path):
  """SIGKILL in the middle; the same command again; the same files."""
  folder = tmp_path / "killed"
  command = [
      sys.executable, "-m", "dreamjax", "--prompt=a red mug",
      f"--workdir={folder}", *SMALL,
  ]
  process = subprocess.Popen(
      command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
      env=os.environ,
  )
  deadline = time.monotonic() + 600
  while not list(folder.glob("checkpoints/0*")):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert not (folder / "mesh.glb").exists(), "it was killed too late"
  assert make(folder) == commands.OK
  assert digests(folder) == digests(done)
