"""Tests of dreamjax.compiler, each program in a process of its own."""

import os
import subprocess
import sys

import pytest

from dreamjax import compiler

_PROGRAM = """
from dreamjax import compiler

compiler.configure(keep=True)

import jax
from jax import monitoring

events = []
monitoring.register_event_listener(lambda event, **_: events.append(event))
jax.jit(lambda x: x + 1)(1.0)
print(sum(event.endswith("/cache_hits") for event in events))
"""


@pytest.fixture(name="hits")
def _hits(tmp_path):
  """Runs the program; how many of its functions had been compiled before."""

  def run(**variables):
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "JAX_COMPILATION_CACHE_DIR"
    }
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=kept
        | {
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        | variables,
        capture_output=True,
        check=True,
        text=True,
    )
    return int(done.stdout)

  return run


def entries(folder):
  return [path for path in folder.rglob("*-cache") if path.is_file()]


def test_what_one_process_compiles_the_next_one_finds(hits, tmp_path):
  assert hits() == 0
  kept = entries(tmp_path / "cache" / "dreamjax")
  assert kept
  assert hits() == len(kept)


def test_cut_off_program_is_compiled_again(hits, tmp_path):
  hits()
  for path in entries(tmp_path):
    path.write_bytes(path.read_bytes()[:100])
  assert hits() == 0


def test_folder_of_the_user_is_used_instead(hits, tmp_path):
  hits(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))
  assert entries(tmp_path / "own")
  assert not (tmp_path / "cache").exists()


def test_folder_that_cannot_be_made_stops_nothing(hits, tmp_path):
  (tmp_path / "file").touch()
  assert hits(XDG_CACHE_HOME=str(tmp_path / "file")) == 0


def flags(jaxlib, monkeypatch, given):
  """XLA_FLAGS that a version of jaxlib gets."""
  monkeypatch.setattr(compiler.metadata, "version", lambda _: jaxlib)
  monkeypatch.setenv("XLA_FLAGS", given)
  compiler.configure(keep=False)
  return os.environ["XLA_FLAGS"]


def test_only_versions_with_slow_convolutions_are_told_so(monkeypatch):
  told = flags("0.10.2", monkeypatch, "--xla_dump_to=x")
  assert told.startswith("--xla_dump_to=x --xla_cpu_experimental_ynn_fusion")
  assert "CONVOLUTION" not in told
  assert flags("0.12.0", monkeypatch, "--xla_dump_to=x") == "--xla_dump_to=x"


def test_flag_of_the_user_stays(monkeypatch):
  own = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"
  assert flags("0.10.2", monkeypatch, own) == own
