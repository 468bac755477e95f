"""Models read from where they are, and written in diffusers format."""

from collections.abc import Sequence
import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamjax.diffusion import clip
from dreamjax.diffusion import embedding
from dreamjax.diffusion import hub
from dreamjax.diffusion import keys
from dreamjax.diffusion import lora
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import schedule
from dreamjax.diffusion import single_file
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


def locate(name: str | pathlib.Path) -> tuple[pathlib.Path, ...]:
  """Where a model is: its folder, or its file and its tokenizer's folder.

  A name such as owner/model that is no path here is looked up on the Hugging
  Face hub, and what is not on this machine yet is downloaded.

  Raises:
    WeightsError: it cannot be had. Whether it is usable, `load` says.
  """
  path = pathlib.Path(name)
  if path.suffix == ".safetensors" and path.is_file():
    return path, single_file.tokenizer_folder(path)
  is_file_name = path.suffix in (".safetensors", *tensors.PICKLES)
  if hub.NAME.fullmatch(str(name)) and not (path.exists() or is_file_name):
    return (hub.model(str(name), STEMS),)
  return (path,)


def read_model(
    name: str | pathlib.Path,
    dtype: Any = "float32",
    prediction: str | None = None,
) -> tuple[model_lib.Model, schedule.NoiseSchedule]:
  """What a model says about its networks; no weights are read.

  Args:
    name: as for `load`; of a folder the configs will do.
    dtype: of the arithmetic.
    prediction: as for `load`.
  Returns:
    The static model and its noise schedule.
  Raises:
    WeightsError: the model or a value in it is not usable.
  """
  path, *rest = locate(name)
  with _faults(path):
    if rest:
      parts = single_file.read(path, *rest, prediction)[:4]
    else:
      parts = _read_configs(path, prediction)
    return _put_together(*parts, dtype)


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
    name: str | pathlib.Path,
    dtype: Any = "float32",
    prediction: str | None = None,
    loras: Sequence[tuple[str | pathlib.Path, float]] = (),
    embeddings: Sequence[str | pathlib.Path] = (),
) -> model_lib.StableDiffusion:
  """Opens a Stable Diffusion 1.x or 2.x.

  Args:
    name: folder in diffusers format (it holds model_index.json), safetensors
      file in the original layout, or name on the Hugging Face hub; no pickle is
      opened.
    dtype: of the arithmetic and of the large parameters.
    prediction: one of schedule.PREDICTIONS, what the UNet of a file predicts;
      None takes what the folder says, or epsilon for a file of 1.x.
    loras: LoRA files and their scales, merged into the weights.
    embeddings: textual inversion files, whose words the tokenizer then knows.
  Returns:
    The model; parameters on the default device.
  Raises:
    WeightsError: the folder, a file or a value in it is not usable.
  """
  path, *rest = locate(name)
  with _faults(path):
    if rest:
      parts = single_file.read(path, *rest, prediction)
    else:
      parts = _read_folder(path, prediction)
    model, noise = _put_together(*parts[:4], dtype)
    wanted = model.shapes()
  words, vectors = embedding.read(embeddings, model.text_encoder.hidden_size)
  tokenizer = text.Tokenizer(
      parts.tokenizer,
      model.text_encoder.max_position_embeddings,
      parts.padding,
      words,
  )
  known = tokenizer.size - len(words)
  if known > model.text_encoder.vocab_size:
    raise tensors.WeightsError(
        f"{path}: the tokenizer has {known} ids, the text encoder"
        f" {model.text_encoder.vocab_size}; they are not of one model."
    )
  arrays = parts.arrays
  for lora_path, scale in loras:
    arrays = lora.merge(arrays, lora_path, scale)
  params = {
      component: keys.from_checkpoint(
          arrays[component],
          wanted[component],
          f"{path}: {component}",
          model.dtype,
      )
      for component in model_lib.COMPONENTS
  }
  if words:
    model, params = _with_vectors(model, params, known, vectors)
  return model_lib.StableDiffusion(model, params, noise, tokenizer)


@contextlib.contextmanager
def _faults(path):
  """What is wrong with a model's values becomes a `WeightsError`."""
  try:
    yield
  except tensors.WeightsError:
    raise
  except (TypeError, ValueError) as error:
    raise tensors.WeightsError(f"{path}: {error}") from error


def _put_together(text_encoder, autoencoder, denoiser, noise, dtype):
  """(model.Model, schedule.NoiseSchedule) of the configs of a model."""
  model = model_lib.Model(text_encoder, autoencoder, denoiser, dtype)
  return model, schedule.make(noise)


def _read_configs(folder, prediction):
  """The first fields of model.Parts."""
  if prediction is not None:
    raise ValueError("the folder says itself what its UNet predicts.")
  _require_folder(folder)
  read = lambda part, file="config.json": tensors.read_json(
      folder / part / file
  )
  return (
      clip.read_config(read("text_encoder")),
      vae.read_config(read("vae")),
      unet.read_config(read("unet")),
      schedule.read_config(read("scheduler", "scheduler_config.json")),
  )


def _read_folder(folder, prediction):
  return model_lib.Parts(
      *_read_configs(folder, prediction),
      {
          name: keys.today(
              tensors.read_component(folder / name, stem), str(folder / name)
          )
          for name, stem in STEMS.items()
      },
      folder / "tokenizer",
  )


def _with_vectors(model, params, known, vectors):
  """Model and parameters whose ids from `known` on have these vectors."""
  name = "embeddings.token_embedding"
  table = params["text_encoder"][name]["embedding"]
  table = jnp.concatenate([table[:known], jnp.asarray(vectors, table.dtype)])
  tower = params["text_encoder"] | {name: {"embedding": table}}
  config = dataclasses.replace(model.text_encoder, vocab_size=len(table))
  return (
      dataclasses.replace(model, text_encoder=config),
      params | {"text_encoder": tower},
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
