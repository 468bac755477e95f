"""Parameter trees to and from tensors under their checkpoint keys.

A parameter's checkpoint key is its path in the Flax tree joined by dots, the
last name in PyTorch's word. Kernels are stored with outputs first: matrices
[out, in], convolutions [out, in, height, width].
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from dreamjax.diffusion import tensors

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
}
"""Flax's names of parameters to PyTorch's."""

OLD_ATTENTION = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}
"""Names of the autoencoder's attention before diffusers 0.12 to today's."""

Path = tuple[str, ...]


def flatten(params: dict[str, Any]) -> dict[Path, Any]:
  """Leaves of nested dicts by path."""
  return {
      names(path): leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }


def names(path: Any) -> Path:
  """The path of a leaf as jax.tree_util gives it, as names."""
  return tuple(entry.key for entry in path)


def kept_dtype(path: Path, dtype: Any) -> Any:
  """Dtype of a network's parameter where the large ones have a given dtype.

  Norms, biases and the time embedding stay float32, for they are small and
  their precision matters.
  """
  is_small = path[-1] in ("scale", "bias") or path[0].startswith("time_")
  return jnp.dtype(jnp.float32 if is_small else dtype)


def checkpoint_key(path: Path) -> str:
  """Checkpoint key of a path in a parameter tree."""
  return ".".join((*path[:-1], LEAVES[path[-1]]))


def _outputs_first(path, array):
  if path[-1] != "kernel":
    return array
  return array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)


def _outputs_last(path, array):
  if path[-1] != "kernel":
    return array
  return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)


def without_pixel(shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape of a 1x1 convolution as that of a matrix."""
  return shape[:2] if shape[2:] == (1, 1) else shape


def to_checkpoint(params: dict[str, Any]) -> dict[str, np.ndarray]:
  """Arrays under their checkpoint keys, of one network's parameters."""
  return {
      checkpoint_key(path): _outputs_first(path, np.asarray(leaf))
      for path, leaf in flatten(params).items()
  }


def from_checkpoint(
    arrays: dict[str, np.ndarray],
    shapes: dict[str, Any],
    source: str,
    dtype: Any = jnp.float32,
) -> dict[str, Any]:
  """One network's parameters, of arrays under their checkpoint keys.

  Args:
    arrays: any float type; 1x1 convolutions and matrices may stand for each
      other.
    shapes: the parameters as jax.ShapeDtypeStruct.
    source: where the arrays are from, for messages.
    dtype: of the large parameters; see `kept_dtype`.
  Returns:
    Nested dicts like `shapes`.
  Raises:
    WeightsError: a key is missing or unknown, a shape or type is wrong, or a
      value is not finite.
  """
  arrays = today(arrays, source)
  wanted = {checkpoint_key(path) for path in flatten(shapes)}
  for odd, fault in (
      (wanted - arrays.keys(), "missing"),
      (arrays.keys() - wanted, "unknown"),
  ):
    if odd:
      raise tensors.WeightsError(
          f"{source}: {len(odd)} tensors are {fault}, first"
          f" {min(odd)!r}; config and weights are not of one model."
      )

  def convert(path, shape):
    path = names(path)
    name = checkpoint_key(path)
    array = arrays[name]
    want = _outputs_first(path, np.broadcast_to(False, shape.shape)).shape
    if without_pixel(array.shape) != without_pixel(want):
      raise tensors.WeightsError(
          f"{source}: {name} is {array.shape}, the config wants {want}."
      )
    array = _outputs_last(path, array.reshape(want))
    array = finite(array, f"{source}: {name}", kept_dtype(path, dtype))
    # jnp.asarray would compile a program for each shape.
    return jax.device_put(array)

  return jax.tree_util.tree_map_with_path(convert, shapes)


def finite(
    array: np.ndarray, name: str, dtype: Any = np.float32
) -> np.ndarray:
  """The array in another float type.

  Raises:
    WeightsError: it holds no floats, or one that is not finite in that type.
  """
  if array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
    raise tensors.WeightsError(f"{name} is {array.dtype}.")
  with np.errstate(over="ignore"):  # Told by the next line, with its name.
    array = array.astype(dtype, order="C")
  if not np.isfinite(array).all():
    raise tensors.WeightsError(
        f"{name} holds NaN or infinity, or a number too large for"
        f" {array.dtype}; the file is damaged."
    )
  return array


def today(
    arrays: dict[str, np.ndarray], source: str
) -> dict[str, np.ndarray]:
  """The arrays under the names that current libraries write.

  Raises:
    WeightsError: a tensor is there under an old and a new name.
  """
  renamed = {}
  for name, array in arrays.items():
    name = name.removeprefix("text_model.")
    if name.endswith("position_ids"):  # A buffer 0, 1, 2, ...
      continue
    name = re.sub(
        r"^(..coder\.mid_block\.attentions\.0)\.([a-z_]+)\.",
        lambda m: f"{m[1]}.{OLD_ATTENTION.get(m[2], m[2])}.",
        name,
    )
    if name in renamed:
      raise tensors.WeightsError(f"{source}: {name} is there twice.")
    renamed[name] = array
  return renamed
