"""Files that are either the old one or the new one, never half of one."""

import contextlib
import os
import pathlib


@contextlib.contextmanager
def replacing(path):
  """Gives a path to write to; it takes the place of `path` if all went well.

  The temporary file stands in the same folder, so that the rename is atomic,
  and keeps the suffix, because encoders read the format from it.

  Args:
    path: str or Path of the file to create or replace.
  Yields:
    pathlib.Path of the temporary file.
  Raises:
    FileNotFoundError: the block wrote nothing.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
  try:
    yield temporary
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
      os.fsync(descriptor)  # the name must not outlive the data in a power cut
    finally:
      os.close(descriptor)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_bytes(path, data):
  """Writes `data` to `path` atomically."""
  with replacing(path) as temporary:
    temporary.write_bytes(data)
