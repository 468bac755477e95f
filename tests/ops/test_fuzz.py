"""Wrong calls, drawn at random: errors of Python's, and never a crash."""

import contextlib

import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import op_inputs
import pytest

from dreamjax import _kernels
from dreamjax.ops import composite
from dreamjax.ops import hash_encode
from dreamjax.ops import hash_grid
from dreamjax.ops import hash_mlp
from dreamjax.ops import kernels
from dreamjax.ops import march
from dreamjax.ops import mlp

GRID = op_inputs.GRID
DTYPES = st.sampled_from(["f2", "f8", "i4", "i8", "u1", "?", "c8", "O", "f4"])
NUMBERS = st.sampled_from(
    [-1, 0, 1, 2, 3, 2.5, -0.5, 1e-300, 1e300, float("nan"), float("inf")]
    + [2**31 - 1, 2**31, 2**63, True, None, "4", (4,), 1j]
)
SETTINGS = hypothesis.settings(
    max_examples=100, deadline=None, derandomize=True, database=None
)


def _zeros(*shape, dtype="f4"):
  return np.zeros(shape, dtype)


# {function: arguments that it takes}.
CALLS = {
    hash_grid.make_grid: {
        "levels": 2,
        "features": 4,
        "log2_table_size": 8,
        "base_resolution": 5,
        "max_resolution": 24,
    },
    hash_encode.hash_encode: {
        "table": _zeros(GRID.num_entries, 4),
        "position": _zeros(5, 3),
        "grid": GRID,
    },
    mlp.mlp: {"weights": [_zeros(8, 3), _zeros(3, 2)], "x": _zeros(5, 8)},
    hash_mlp.hash_mlp: {
        "table": _zeros(GRID.num_entries, 4),
        "weights": [_zeros(8, 3), _zeros(3, 2)],
        "position": _zeros(5, 3),
        "grid": GRID,
    },
    hash_mlp.hash_mlp_slope: {
        "table": _zeros(GRID.num_entries, 4),
        "weights": [_zeros(8, 3), _zeros(3, 2)],
        "position": _zeros(5, 3),
        "grid": GRID,
        "count": _zeros(dtype="i4"),
    },
    composite.composite: {
        "density": _zeros(8),
        "value": _zeros(8, 3),
        "width": _zeros(8),
        "offset": _zeros(3, dtype="i4"),
    },
    march.march: {
        "origin": _zeros(5, 3),
        "direction": _zeros(5, 3),
        "jitter": _zeros(5),
        "occupancy": _zeros(9, 9, 2, dtype="u1"),
        "step": 0.1,
        "bound": 1.0,
        "max_samples": 10,
    },
}


@st.composite
def _shapes(draw, shape):
  """Another shape: an axis more or less, or of another size."""
  shape = list(shape)
  axis = draw(st.integers(0, len(shape)))
  size = draw(st.sampled_from([0, 1, 2, 3, 7]))
  if axis == len(shape) or draw(st.booleans()):
    shape.insert(axis, size)
  elif draw(st.booleans()):
    shape[axis] = size
  else:
    del shape[axis]
  return tuple(shape)


@st.composite
def _spoilt(draw, value):
  """What may come in place of an argument."""
  if isinstance(value, hash_grid.HashGrid):
    name = draw(st.sampled_from(value._fields))
    return value._replace(**{name: draw(_spoilt(getattr(value, name)))})
  if isinstance(value, (list, tuple)):
    index = draw(st.integers(0, len(value) - 1))
    change = draw(st.sampled_from(["drop", "double", "spoil"]))
    middle = {
        "drop": [],
        "double": [value[index]] * 2,
        "spoil": [draw(_spoilt(value[index]))],
    }[change]
    return type(value)([*value[:index], *middle, *value[index + 1 :]])
  if not isinstance(value, np.ndarray):
    return draw(NUMBERS)
  change = draw(st.sampled_from(["shape", "shape", "dtype", "type"]))
  if change == "shape":
    return np.zeros(draw(_shapes(value.shape)), value.dtype)
  if change == "dtype":
    return value.astype(draw(DTYPES))
  return draw(st.sampled_from([None, 0.5, "array", value.tolist(), {}]))


@pytest.mark.parametrize("function", CALLS, ids=lambda f: f.__name__)
@SETTINGS
@hypothesis.given(data=st.data())
def test_a_wrong_argument_is_a_value_or_type_error(function, data):
  arguments = dict(CALLS[function])
  names = st.sets(st.sampled_from(sorted(arguments)), min_size=1)
  for name in data.draw(names):
    arguments[name] = data.draw(_spoilt(arguments[name]))
  with contextlib.suppress(ValueError, TypeError):
    results = jax.eval_shape(lambda: function(**arguments))
    if sum(leaf.size for leaf in jax.tree.leaves(results)) < 2**16:
      jax.block_until_ready(function(**arguments))


@pytest.fixture(scope="module")
def calls():
  """{target: (results, arguments, attributes)}, as the operations call it."""
  found, call = {}, kernels.call

  def record(target, definition, results, *arguments, **attributes):
    found[target] = (
        results,
        [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arguments],
        attributes,
    )
    return call(target, definition, results, *arguments, **attributes)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(kernels, "call", record)
    for compute, operation, arrays in op_inputs.OPERATIONS.values():
      jax.eval_shape(compute(operation), *arrays)
  assert found.keys() == _kernels.targets()["cpu"].keys()
  return found


def _spoilt_attribute(data, value):
  """An attribute of another number, count or dtype."""
  numbers = np.array(value, ndmin=1)
  index = data.draw(st.integers(0, numbers.size - 1))
  change = data.draw(st.sampled_from(["set", "set", "drop", "double", "dtype"]))
  if change == "drop":
    numbers = np.delete(numbers, index)
  elif change == "double":
    numbers = np.insert(numbers, index, numbers[index])
  elif change == "dtype":
    numbers = numbers.astype(data.draw(st.sampled_from(["i2", "i4", "f8"])))
  else:
    near = numbers[index].item()
    other = st.sampled_from([-1, 0, 1, near + 1, near - 1, 2**30, 2**31 - 1])
    numbers[index] = data.draw(other)
  is_scalar = np.ndim(value) == 0 and numbers.size == 1
  return numbers[0] if is_scalar else numbers


@SETTINGS
@hypothesis.given(data=st.data())
def test_a_handler_refuses_buffers_and_attributes_that_do_not_fit(calls, data):
  target = data.draw(st.sampled_from(sorted(calls)))
  results, arguments, attributes = calls[target]
  buffers = [*results, *arguments]
  if attributes and data.draw(st.booleans()):
    name = data.draw(st.sampled_from(sorted(attributes)))
    attributes = attributes | {name: _spoilt_attribute(data, attributes[name])}
  else:
    index = data.draw(st.integers(0, len(buffers) - 1))
    old = buffers[index]
    buffers[index] = jax.ShapeDtypeStruct(
        data.draw(_shapes(old.shape)), old.dtype
    )
  run = jax.ffi.ffi_call(target, buffers[: len(results)])
  arrays = [np.zeros(b.shape, b.dtype) for b in buffers[len(results) :]]
  with contextlib.suppress(ValueError, jax.errors.JaxRuntimeError):
    jax.block_until_ready(run(*arrays, **attributes))
