"""Model folders in diffusers format, read and written."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np

from dreamjax.diffusion import clip
from dreamjax.diffusion import keys
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import schedule
from dreamjax.diffusion import tensors
from dreamjax.diffusion import text
from dreamjax.diffusion import unet
from dreamjax.diffusion import vae

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


def read_model(
    folder: str | pathlib.Path, dtype: Any = "float32"
) -> tuple[model_lib.Model, schedule.NoiseSchedule]:
  """What a model folder says about its networks; no weights are read.

  Args:
    folder: as for `load`.
    dtype: of the arithmetic.
  Returns:
    The static model and its noise schedule.
  Raises:
    WeightsError: the folder or a value in it is not usable.
  """
  folder = pathlib.Path(folder)
  _require_folder(folder)
  read = lambda part: tensors.read_json(folder / part / "config.json")
  try:
    model = model_lib.Model(
        clip.read_config(read("text_encoder")),
        vae.read_config(read("vae")),
        unet.read_config(read("unet")),
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
  return model, noise


def shapes(model: model_lib.Model) -> dict[str, Any]:
  """Parameters as `load` gives them, as jax.ShapeDtypeStruct."""
  cast = lambda path, leaf: jax.ShapeDtypeStruct(
      leaf.shape, keys.kept_dtype(keys.names(path), model.dtype)
  )
  return {
      name: jax.tree_util.tree_map_with_path(cast, part)
      for name, part in model.shapes().items()
  }


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
  model, noise = read_model(folder, dtype)
  tokenizer = text.Tokenizer(
      folder / "tokenizer", model.text_encoder.max_position_embeddings
  )
  if tokenizer.size > model.text_encoder.vocab_size:
    raise tensors.WeightsError(
        f"{folder}: the tokenizer has {tokenizer.size} ids, the text encoder"
        f" {model.text_encoder.vocab_size}; they are not of one model."
    )
  params = {
      name: keys.from_checkpoint(
          tensors.read_component(folder / name, STEMS[name]),
          wanted,
          str(folder / name),
          model.dtype,
      )
      for name, wanted in model.shapes().items()
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
    arrays = keys.to_checkpoint(pipeline.params[name])
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
