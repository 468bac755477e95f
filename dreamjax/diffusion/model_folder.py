"""Folders in diffusers format, read and written."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from dreamjax.diffusion import clip
from dreamjax.diffusion import keys
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import schedule
from dreamjax.diffusion import tensors
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


def read_configs(folder: pathlib.Path) -> tuple[Any, ...]:
  """The first fields of model.Parts, from a folder that may have no weights.

  Args:
    folder: it holds model_index.json.
  Raises:
    WeightsError: the folder is unusable or of another family.
    TypeError: a value is of a wrong type.
    ValueError: a value means nothing.
  """
  _require_folder(folder)
  read_part = lambda part, file="config.json": tensors.read_json(
      folder / part / file
  )
  return (
      clip.read_config(read_part("text_encoder")),
      vae.read_config(read_part("vae")),
      unet.read_config(read_part("unet")),
      schedule.read_config(read_part("scheduler", "scheduler_config.json")),
  )


def read(folder: pathlib.Path) -> model_lib.Parts:
  """A Stable Diffusion 1.x or 2.x; arguments and errors of `read_configs`."""
  return model_lib.Parts(
      *read_configs(folder),
      {
          name: keys.today(
              tensors.read_component(folder / name, stem), str(folder / name)
          )
          for name, stem in STEMS.items()
      },
      folder / "tokenizer",
  )


def _require_folder(folder):
  advice = (
      "want a Stable Diffusion 1.x or 2.x: a folder in diffusers format, the"
      " one with model_index.json (hf download <name> --local-dir <folder>"
      " makes one), or a .safetensors file."
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
