"""A file is the old one or the new one."""

import os

import pytest

from dreamjax.outputs import files


def test_an_error_while_writing_leaves_the_old_file_alone(tmp_path):
  path = tmp_path / "mesh.glb"
  files.write_bytes(path, b"old")
  with pytest.raises(RuntimeError, match="torn"):
    with files.replacing(path) as temporary:
      temporary.write_bytes(b"ne")
      raise RuntimeError("torn")
  assert path.read_bytes() == b"old"
  assert os.listdir(tmp_path) == ["mesh.glb"]


def test_the_temporary_file_keeps_folder_and_suffix(tmp_path):
  with files.replacing(tmp_path / "turn.mp4") as temporary:
    assert temporary.parent == tmp_path
    assert temporary.suffix == ".mp4"
    temporary.write_bytes(b"x")
  assert (tmp_path / "turn.mp4").read_bytes() == b"x"


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError):
    with files.replacing(tmp_path / "a.png"):
      pass


def test_a_file_is_readable_as_the_umask_says(tmp_path):
  mask = os.umask(0o022)
  try:
    files.write_bytes(tmp_path / "a", b"x")
  finally:
    os.umask(mask)
  assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644
