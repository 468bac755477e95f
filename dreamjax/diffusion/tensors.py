"""Tensors in safetensors files, read without trust and without a copy.

A safetensors file is a little-endian u64 n, n bytes of JSON (name -> dtype,
shape, begin and end of the data) and the data. Files are mapped into memory:
opening costs the header alone, whatever sizes it claims. Formats that can run
code when they are opened (pickles) are refused.
"""

import collections
import json
import math
import pathlib

import ml_dtypes
import numpy as np
import safetensors.numpy

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}

MAX_HEADER = 100_000_000
"""Largest header in bytes, the limit of the safetensors library."""

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
"""Suffixes of files that PyTorch unpickles."""

SAFE_WAY = (
    "Opening it could run code. Convert it once on a machine that you can lose"
    " (in diffusers: pipeline.save_pretrained(folder, safe_serialization=True))"
    " or download the .safetensors files of the same model."
)


class WeightsError(ValueError):
  """A model folder or file that cannot be used; the message says what to do."""


def read(path):
  """Tensors of a safetensors file.

  Args:
    path: the file.
  Returns:
    dict from name to read-only array that lies in the mapped file.
  Raises:
    WeightsError: the file is missing, a pickle, malformed or truncated.
  """
  path = pathlib.Path(path)
  entries, begin = _read_header(path)
  entries.pop("__metadata__", None)
  if path.stat().st_size == begin:
    data = np.empty(0, np.uint8)
  else:
    data = np.memmap(path, np.uint8, "r", offset=begin)
  return _tensors(path, entries, data)


def read_metadata(path):
  """What the writer of a safetensors file noted, dict from name to text.

  Raises:
    WeightsError: as `read`, or a note is no text.
  """
  path = pathlib.Path(path)
  notes = _read_header(path)[0].get("__metadata__", {})
  if not isinstance(notes, dict) or not all(
      isinstance(note, str) for note in notes.values()
  ):
    raise WeightsError(f"{path}: __metadata__ is not a dict of texts.")
  return notes


def _read_header(path):
  """The parsed header, and where the data begin."""
  try:
    with path.open("rb") as file:
      start = file.read(8)
      size = int.from_bytes(start, "little")
      length = path.stat().st_size
      if len(start) < 8 or not 2 <= size <= min(MAX_HEADER, length - 8):
        _refuse_other_formats(path, start)
        raise WeightsError(
            f"{path}: not a safetensors file, or cut short: {length} bytes"
            f" with a header of {size}; download it again."
        )
      header = file.read(size)
  except OSError as error:
    raise WeightsError(f"{path}: {error.strerror}.") from error
  if not header.startswith(b"{"):
    _refuse_other_formats(path, start)
  return _parse_header(path, header), 8 + size


def _refuse_other_formats(path, start):
  """Names the format of a file that is not safetensors, if it is known."""
  zipped = start.startswith(b"PK\x03\x04")  # torch.save since 1.6
  if zipped or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
    raise WeightsError(f"{path}: a pickle, whatever its name. {SAFE_WAY}")
  if start == b"version ":
    raise WeightsError(
        f"{path}: a Git LFS pointer, not the weights; run `git lfs pull` there."
    )


def _parse_header(path, header):
  def unique(pairs):
    names = collections.Counter(name for name, _ in pairs)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
      raise WeightsError(f"{path}: {twice[0]!r} is there twice.")
    return dict(pairs)

  try:
    entries = json.loads(header, object_pairs_hook=unique)
  except WeightsError:
    raise
  except (ValueError, RecursionError) as error:
    raise WeightsError(f"{path}: the header is not JSON: {error}.") from error
  if not isinstance(entries, dict):
    raise WeightsError(f"{path}: the header is not a JSON object.")
  return entries


def _tensors(path, entries, data):
  tensors = {}
  spans = []
  for name, entry in entries.items():
    try:
      dtype = np.dtype(DTYPES[entry["dtype"]])
      shape = tuple(entry["shape"])
      begin, end = entry["data_offsets"]
      numbers = (*shape, begin, end)
      if any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(f"sizes {shape} and span {begin}..{end}")
      if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{shape} of {dtype} does not fill {begin}..{end}")
      if end > data.size:
        raise ValueError(f"ends at byte {end} of {data.size}")
      # Unaligned data is legal; a view of bytes copes with it.
      tensors[name] = np.ndarray(shape, dtype, data, begin)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
      raise WeightsError(
          f"{path}: tensor {name!r} is malformed: {error!s}; download the file"
          " again."
      ) from error
    spans.append((begin, end))
  position = 0
  for begin, end in sorted(spans):
    if begin != position:
      raise WeightsError(
          f"{path}: tensors overlap or leave a hole at byte {position}."
      )
    position = end
  if position != data.size:
    raise WeightsError(f"{path}: {data.size - position} bytes too many.")
  return tensors


def write(path, tensors):
  """Writes tensors (dict from name to array) as a safetensors file."""
  # Not save_file, whose files nobody else may read.
  content = safetensors.numpy.save(
      {name: np.ascontiguousarray(value) for name, value in tensors.items()},
      metadata={"format": "pt"},
  )
  pathlib.Path(path).write_bytes(content)


def read_json(path):
  """The JSON object in a file.

  Raises:
    WeightsError: the file is missing or does not hold one.
  """
  path = pathlib.Path(path)
  try:
    values = json.loads(path.read_text(encoding="utf-8"))
  except OSError as error:
    raise WeightsError(f"{path}: {error.strerror}.") from error
  except (ValueError, RecursionError) as error:
    raise WeightsError(f"{path}: not JSON: {error}.") from error
  if not isinstance(values, dict):
    raise WeightsError(f"{path}: want a JSON object.")
  return values


def read_component(folder, stem):
  """Tensors of one model of a folder in diffusers format.

  Takes `stem`.safetensors, whole or sharded, or else its fp16 variant.

  Args:
    folder: the model's folder, such as .../unet.
    stem: "diffusion_pytorch_model" or "model".
  Returns:
    dict from name to array, as `read`.
  Raises:
    WeightsError: there is none, or a file is unusable.
  """
  folder = pathlib.Path(folder)
  for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
    if (folder / name).exists():
      return read(folder / name)
  for name in (
      f"{stem}.safetensors.index.json",
      f"{stem}.safetensors.index.fp16.json",
  ):
    if (folder / name).exists():
      return _read_shards(folder / name)
  for path in sorted(folder.glob("*")):
    if path.suffix in PICKLES:
      raise WeightsError(f"{path}: a pickle. {SAFE_WAY}")
  raise WeightsError(f"{folder}: no {stem}.safetensors there.")


def _read_shards(index):
  where = read_json(index).get("weight_map")
  if not isinstance(where, dict) or not where:
    raise WeightsError(f"{index}: no weight_map.")
  tensors = {}
  for shard in sorted(set(map(str, where.values()))):
    if pathlib.PurePath(shard).name != shard or "\\" in shard:
      raise WeightsError(
          f"{index}: shard {shard!r} is not a plain file name."
      )
    part = read(index.parent / shard)
    claimed = {name for name, file in where.items() if file == shard}
    if part.keys() != claimed:
      odd = sorted(part.keys() ^ claimed)[0]
      raise WeightsError(
          f"{index}: {odd!r} is not where the index says ({shard})."
      )
    tensors.update(part)
  return tensors
