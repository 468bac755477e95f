"""Model folders in diffusers format, read and written.

A parameter's checkpoint key is its path in the Flax tree joined by dots, the
last name in PyTorch's word. Kernels are stored with outputs first: matrices
[out, in], convolutions [out, in, height, width].
"""

import dataclasses
import json
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from dreamjax.diffusion import clip
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import schedule
from dreamjax.diffusion import tensors
from dreamjax.diffusion import text
from dreamjax.diffusion import unet
from dreamjax.diffusion import vae

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
}
"""Flax's names of parameters to PyTorch's."""

STEMS = {
    "text_encoder": "model",
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
}
"""File names without suffix, by component."""

CLASSES = {
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
"""What model_index.json calls the parts."""

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
      tuple(entry.key for entry in path): leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }


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

  Matrices and embeddings are cast to `dtype`; norms, biases and the time
  embedding stay float32, for they are small and their precision matters.

  Args:
    arrays: any float type; 1x1 convolutions and matrices may stand for each
      other.
    shapes: the parameters as jax.ShapeDtypeStruct.
    source: where the arrays are from, for messages.
    dtype: of the large parameters.
  Returns:
    Nested dicts like `shapes`.
  Raises:
    WeightsError: a key is missing or unknown, a shape or type is wrong, or a
      value is not finite.
  """
  arrays = _today(arrays, source)
  wanted = {checkpoint_key(path) for path in flatten(shapes)}
  for names, fault in (
      (wanted - arrays.keys(), "missing"),
      (arrays.keys() - wanted, "unknown"),
  ):
    if names:
      raise tensors.WeightsError(
          f"{source}: {len(names)} tensors are {fault}, first"
          f" {min(names)!r}; config.json and weights are not of one model."
      )

  def convert(path, shape):
    path = tuple(entry.key for entry in path)
    name = checkpoint_key(path)
    array = arrays[name]
    if array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
      raise tensors.WeightsError(f"{source}: {name} is {array.dtype}.")
    if path[-1] == "kernel" and array.shape[2:] in ((), (1, 1)):
      array = array.reshape(
          array.shape[:2] + (1,) * (len(shape.shape) - 2)
      )
    array = _outputs_last(path, array)
    if array.shape != shape.shape:
      want = _outputs_first(path, np.empty(shape.shape, np.bool_)).shape
      raise tensors.WeightsError(
          f"{source}: {name} is {arrays[name].shape}, config.json wants"
          f" {want}."
      )
    small = path[-1] in ("scale", "bias") or path[0].startswith("time_")
    array = array.astype(np.float32 if small else dtype, order="C")
    if not np.isfinite(array).all():
      raise tensors.WeightsError(
          f"{source}: {name} holds NaN or infinity; the file is damaged."
      )
    return jnp.asarray(array)

  return jax.tree_util.tree_map_with_path(convert, shapes)


def _today(arrays, source):
  """The arrays under the names that current libraries write."""
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


def load(
    folder: str | pathlib.Path, dtype: Any = "float32"
) -> model_lib.StableDiffusion:
  """Opens a Stable Diffusion 1.x or 2.x folder in diffusers format.

  Args:
    folder: it holds model_index.json; nothing is downloaded and no pickle is
      opened.
    dtype: of the arithmetic and of the large parameters.
  Returns:
    The model; parameters on the default device.
  Raises:
    WeightsError: the folder, a file or a value in it is not usable.
  """
  folder = pathlib.Path(folder)
  _require_folder(folder)
  try:
    model = model_lib.Model(
        clip.read_config(
            tensors.read_json(folder / "text_encoder" / "config.json")
        ),
        vae.read_config(tensors.read_json(folder / "vae" / "config.json")),
        unet.read_config(tensors.read_json(folder / "unet" / "config.json")),
        dtype,
    )
    noise = schedule.make(
        schedule.read_config(
            tensors.read_json(folder / "scheduler" / "scheduler_config.json")
        )
    )
  except tensors.WeightsError:
    raise
  except (TypeError, ValueError) as error:
    raise tensors.WeightsError(f"{folder}: {error}") from error
  tokenizer = text.Tokenizer(
      folder / "tokenizer", model.text_encoder.max_position_embeddings
  )
  if tokenizer.size > model.text_encoder.vocab_size:
    raise tensors.WeightsError(
        f"{folder}: the tokenizer has {tokenizer.size} ids, the text encoder"
        f" {model.text_encoder.vocab_size}; they are not of one model."
    )
  params = {
      name: from_checkpoint(
          tensors.read_component(folder / name, STEMS[name]),
          shapes,
          str(folder / name),
          model.dtype,
      )
      for name, shapes in model.shapes().items()
  }
  return model_lib.StableDiffusion(model, params, noise, tokenizer)


def _require_folder(folder):
  advice = (
      "want a Stable Diffusion 1.x or 2.x folder in diffusers format, the one"
      " with model_index.json (hf download <name> --local-dir <folder> makes"
      " one)."
  )
  if folder.suffix in tensors.PICKLES:
    raise tensors.WeightsError(f"{folder}: a pickle. {tensors.SAFE_WAY}")
  if not folder.is_dir():
    raise tensors.WeightsError(f"{folder}: not a folder; {advice}")
  if not (folder / "model_index.json").exists():
    raise tensors.WeightsError(f"{folder}: no model_index.json; {advice}")
  index = tensors.read_json(folder / "model_index.json")
  family = index.get("_class_name")
  if family != "StableDiffusionPipeline":
    raise tensors.WeightsError(f"{folder}: a {family}; {advice}")
  for name in model_lib.COMPONENTS:
    if index.get(name) != CLASSES[name]:
      raise tensors.WeightsError(
          f"{folder}: {name} is {index.get(name)}, want {CLASSES[name]};"
          f" {advice}"
      )


def save(
    folder: str | pathlib.Path,
    pipeline: model_lib.StableDiffusion,
    dtype: Any = np.float32,
) -> None:
  """Writes a folder that diffusers' StableDiffusionPipeline opens.

  model_index.json comes last: a folder that has one is whole.

  Args:
    folder: made if missing; files of the same names are replaced.
    pipeline: what to write.
    dtype: of the stored parameters, such as np.float16.
  Raises:
    ValueError: a parameter is not finite in that dtype.
  """
  folder = pathlib.Path(folder)
  (folder / "model_index.json").unlink(missing_ok=True)
  configs = _configs(pipeline)
  for name in model_lib.COMPONENTS:
    arrays = to_checkpoint(pipeline.params[name])
    prefix = "text_model." if name == "text_encoder" else ""
    stored = {}
    for key, array in arrays.items():
      with np.errstate(over="ignore"):  # Told below, by name.
        stored[prefix + key] = array.astype(dtype)
      if not np.isfinite(stored[prefix + key]).all():
        raise ValueError(
            f"{name}: {key} is not finite as {np.dtype(dtype).name}."
        )
    (folder / name).mkdir(parents=True, exist_ok=True)
    tensors.write(folder / name / f"{STEMS[name]}.safetensors", stored)
    _write_json(folder / name / "config.json", configs[name])
  pipeline.tokenizer.save(folder / "tokenizer")
  (folder / "scheduler").mkdir(exist_ok=True)
  _write_json(
      folder / "scheduler" / "scheduler_config.json", configs["scheduler"]
  )
  _write_json(
      folder / "model_index.json",
      {
          "_class_name": "StableDiffusionPipeline",
          "feature_extractor": [None, None],
          "image_encoder": [None, None],
          "requires_safety_checker": False,
          "safety_checker": [None, None],
      }
      | CLASSES,
  )


def _configs(pipeline):
  """The JSON of each part."""
  model, tokenizer = pipeline.model, pipeline.tokenizer
  levels = len(model.vae.block_out_channels)
  own = {
      "text_encoder": {
          "architectures": ["CLIPTextModel"],
          "model_type": "clip_text_model",
          "bos_token_id": tokenizer.start,
          "eos_token_id": tokenizer.end,
          "pad_token_id": tokenizer.padding,
      },
      "vae": {
          "down_block_types": ["DownEncoderBlock2D"] * levels,
          "up_block_types": ["UpDecoderBlock2D"] * levels,
      },
      "unet": {},
      # What diffusers' pipeline insists on, and what sample.py does.
      "scheduler": {"clip_sample": False, "steps_offset": 1},
  }
  parts = {
      "text_encoder": model.text_encoder,
      "vae": model.vae,
      "unet": model.unet,
      "scheduler": pipeline.schedule.config,
  }
  return {
      name: {"_class_name": CLASSES[name][1]}
      | dataclasses.asdict(part)
      | own[name]
      for name, part in parts.items()
  }


def _write_json(path, values):
  path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
