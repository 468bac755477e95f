"""Reading safetensors files that nobody vouches for."""

import json
import pickle
import struct
import zipfile

import hypothesis
from hypothesis import strategies
import ml_dtypes
import numpy as np
import pytest

from dreamjax.diffusion import tensors

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([1.5], ml_dtypes.bfloat16),
    "c": np.array(3, np.int64),
}


def pack(header, data=b""):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + data


def entry(shape=(2,), span=(0, 8), dtype="F32"):
  return {"dtype": dtype, "shape": shape, "data_offsets": span}


def test_what_is_written_is_read_back(tmp_path):
  path = tmp_path / "a.safetensors"
  tensors.write(path, ARRAYS)
  read = tensors.read(path)
  assert read.keys() == ARRAYS.keys()
  for name, array in ARRAYS.items():
    assert read[name].dtype == array.dtype
    np.testing.assert_array_equal(read[name], array)
    assert not read[name].flags.writeable


def test_files_are_as_readable_as_any_other(tmp_path):
  (tmp_path / "other").touch()
  tensors.write(tmp_path / "a.safetensors", ARRAYS)
  mode = lambda name: (tmp_path / name).stat().st_mode
  assert mode("a.safetensors") == mode("other")


def test_transposed_arrays_are_written_in_their_own_order(tmp_path):
  path = tmp_path / "a.safetensors"
  tensors.write(path, {"a": ARRAYS["a"].T})
  np.testing.assert_array_equal(tensors.read(path)["a"], ARRAYS["a"].T)


MALFORMED = {
    "empty": b"",
    "short": b"\x01\x02",
    "text": b"this is not a file of tensors",
    "header past the end": struct.pack("<Q", 10**6) + b"{}",
    "huge header": struct.pack("<Q", 2**63) + b"{}",
    "header not JSON": pack(b"{nonsense}"),
    "header not UTF-8": pack(b'{"\xff": 1}'),
    "deep header": pack(b"[" * 100_000),
    "header a list": pack([]),
    "entry a number": pack({"a": 3}),
    "no shape": pack({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)),
    "unknown type": pack({"a": entry(dtype="F8")}, bytes(8)),
    "negative size": pack({"a": entry((-2,), (0, 8))}, bytes(8)),
    "fractional size": pack({"a": entry((2.0,), (0, 8))}, bytes(8)),
    "wrong span": pack({"a": entry((3,), (0, 8))}, bytes(8)),
    "span past the end": pack({"a": entry()}, bytes(4)),
    "a terabyte": pack({"a": entry((2**38,), (0, 2**40))}, bytes(8)),
    "empty but endless": pack({"a": entry((0, 2**70), (0, 0))}),
    "too many sides": pack({"a": entry((1,) * 100, (0, 4))}, bytes(4)),
    "endless number": pack(b'{"a": ' + b"1" * 5000 + b"}"),
    "overlap": pack(
        {"a": entry(), "b": entry((2,), (4, 12))}, bytes(12)
    ),
    "hole": pack({"a": entry((1,), (4, 8))}, bytes(8)),
    "rest": pack({"a": entry()}, bytes(9)),
    "twice": pack(
        b'{"a": {"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
        b' "a": {"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    ),
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_file_is_one_clear_error(content, tmp_path):
  path = tmp_path / "bad.safetensors"
  path.write_bytes(content)
  with pytest.raises(tensors.WeightsError, match="bad.safetensors"):
    tensors.read(path)


def test_notes_of_the_writer_are_read(tmp_path):
  path = tmp_path / "a.safetensors"
  path.write_bytes(pack({"__metadata__": {"a": "b"}}))
  assert tensors.read_metadata(path) == {"a": "b"}
  path.write_bytes(pack({}))
  assert tensors.read_metadata(path) == {}


@pytest.mark.parametrize("notes", [[], {"a": 1}, None])
def test_notes_that_are_no_texts_are_one_clear_error(notes, tmp_path):
  path = tmp_path / "a.safetensors"
  path.write_bytes(pack({"__metadata__": notes}))
  with pytest.raises(tensors.WeightsError, match="not a dict of texts"):
    tensors.read_metadata(path)


def test_a_missing_file_is_one_clear_error(tmp_path):
  with pytest.raises(tensors.WeightsError, match="No such file"):
    tensors.read(tmp_path / "a.safetensors")


class Trap:
  """Creates a file when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["m.bin", "m.safetensors"])
def test_a_pickle_is_refused_whatever_its_name_and_never_opened(
    name, zipped, tmp_path
):
  content = pickle.dumps(Trap(tmp_path / "sprung"))
  if zipped:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
      archive.writestr("data.pkl", content)
  else:
    (tmp_path / name).write_bytes(content)
  with pytest.raises(tensors.WeightsError, match="pickle.*safe_serialization"):
    tensors.read_component(tmp_path, "m")
  with pytest.raises(tensors.WeightsError, match="pickle"):
    tensors.read(tmp_path / name)
  assert not (tmp_path / "sprung").exists()


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path):
  # 66176 bytes: the file begins with 80 02, as a pickle of protocol 2 does.
  path = tmp_path / "m.safetensors"
  header = json.dumps({"a": entry()}).encode()
  path.write_bytes(pack(header + b" " * (66176 - len(header)), bytes(8)))
  assert path.read_bytes().startswith(b"\x80\x02")
  np.testing.assert_array_equal(tensors.read(path)["a"], np.zeros(2))


def test_a_large_file_pointer_says_what_to_do(tmp_path):
  path = tmp_path / "m.safetensors"
  path.write_text("version https://git-lfs.github.com/spec/v1\n")
  with pytest.raises(tensors.WeightsError, match="git lfs pull"):
    tensors.read(path)


def write_shards(folder, weight_map, suffix=""):
  tensors.write(folder / "m-1.safetensors", {"a": ARRAYS["a"]})
  tensors.write(folder / "m-2.safetensors", {"b": ARRAYS["b"]})
  index = json.dumps({"weight_map": weight_map})
  (folder / f"m.safetensors.index{suffix}.json").write_text(index)


@pytest.mark.parametrize("suffix", ["", ".fp16"])
def test_shards_are_joined(suffix, tmp_path):
  write_shards(
      tmp_path, {"a": "m-1.safetensors", "b": "m-2.safetensors"}, suffix
  )
  assert tensors.read_component(tmp_path, "m").keys() == {"a", "b"}


@pytest.mark.parametrize(
    "weight_map, message",
    [
        ({"a": "../m-1.safetensors"}, "plain file name"),
        ({"a": "/etc/passwd"}, "plain file name"),
        ({"a": "m-2.safetensors"}, "not where the index says"),
        ({"a": "m-3.safetensors"}, "No such file"),
        ({}, "no weight_map"),
        (None, "no weight_map"),
    ],
)
def test_a_bad_index_is_one_clear_error(weight_map, message, tmp_path):
  write_shards(tmp_path, weight_map)
  with pytest.raises(tensors.WeightsError, match=message):
    tensors.read_component(tmp_path, "m")


def test_the_full_precision_file_is_preferred_to_the_half_one(tmp_path):
  tensors.write(tmp_path / "m.fp16.safetensors", {"a": np.zeros(1, np.float16)})
  assert tensors.read_component(tmp_path, "m")["a"].dtype == np.float16
  tensors.write(tmp_path / "m.safetensors", {"a": np.zeros(1, np.float32)})
  assert tensors.read_component(tmp_path, "m")["a"].dtype == np.float32


def test_a_folder_without_tensors_is_one_clear_error(tmp_path):
  with pytest.raises(tensors.WeightsError, match="no m.safetensors there"):
    tensors.read_component(tmp_path, "m")


@pytest.mark.parametrize(
    "content", ["{", "[]", "\x00", "[" * 100_000, '{"a": ' + "1" * 5000 + "}"]
)
def test_json_that_is_no_object_is_one_clear_error(content, tmp_path):
  (tmp_path / "a.json").write_text(content)
  with pytest.raises(tensors.WeightsError, match="JSON"):
    tensors.read_json(tmp_path / "a.json")


def test_no_mutation_of_a_file_ends_in_another_error(tmp_path):
  path = tmp_path / "m.safetensors"
  tensors.write(path, ARRAYS)
  whole = path.read_bytes()
  random = np.random.default_rng(0)
  for _ in range(1000):
    content = bytearray(whole[: random.integers(1, len(whole) + 1)])
    for place in random.integers(len(content), size=random.integers(4)):
      content[place] = random.choice(list(b'0123456789{}[]",:-.e\xff'))
    path.write_bytes(content)
    try:
      for array in tensors.read(path).values():
        array.copy()
    except tensors.WeightsError:
      pass


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  return tmp_path_factory.mktemp("fuzz") / "m.safetensors"


PATIENT = hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
"""For machines that are busy with something else."""

NUMBERS = strategies.one_of(
    strategies.integers(-2, 9), strategies.sampled_from([2**31, 2**63, 2**64])
)
ENTRIES = strategies.fixed_dictionaries({
    "dtype": strategies.sampled_from([*tensors.DTYPES, "F8", 3]),
    "shape": strategies.lists(NUMBERS, max_size=4),
    "data_offsets": strategies.lists(NUMBERS, min_size=1, max_size=3),
})
ANYTHING = strategies.recursive(
    strategies.one_of(
        strategies.none(),
        strategies.booleans(),
        strategies.floats(),
        strategies.text(max_size=3),
        NUMBERS,
    ),
    lambda inner: strategies.one_of(
        strategies.lists(inner, max_size=3),
        strategies.dictionaries(
            strategies.sampled_from(["dtype", "shape", "data_offsets", "x"]),
            inner,
        ),
    ),
    max_leaves=5,
)
HEADERS = strategies.dictionaries(
    strategies.sampled_from(["a", "b", "", "__metadata__"]),
    strategies.one_of(ENTRIES, ANYTHING),
)


@PATIENT
@hypothesis.given(HEADERS, strategies.binary(max_size=16))
def test_no_header_ends_in_another_error(file, header, data):
  file.write_bytes(pack(header, data))
  for read in (tensors.read, tensors.read_metadata):
    try:
      read(file)
    except tensors.WeightsError:
      pass


@PATIENT
@hypothesis.given(strategies.binary(max_size=64))
def test_no_bytes_end_in_another_error(file, data):
  for content in (data, pack(data)):
    file.write_bytes(content)
    try:
      tensors.read(file)
    except tensors.WeightsError:
      pass
