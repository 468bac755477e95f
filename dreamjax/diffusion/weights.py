"""Models read from where they are: a folder, a file or the hub."""

from collections.abc import Sequence
import contextlib
import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from dreamjax.diffusion import embedding
from dreamjax.diffusion import hub
from dreamjax.diffusion import keys
from dreamjax.diffusion import lora
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import model_folder
from dreamjax.diffusion import schedule
from dreamjax.diffusion import single_file
from dreamjax.diffusion import tensors
from dreamjax.diffusion import text


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
    return (hub.model(str(name), model_folder.STEMS),)
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
  place = locate(name)
  with _faults(place[0]):
    parts = _read(place, prediction, model_folder.read_configs)
    return _put_together(*parts[:4], dtype)


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
  place = locate(name)
  path = place[0]
  with _faults(path):
    parts = _read(place, prediction, model_folder.read)
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


def _read(place, prediction, read_folder):
  """What a file, or the given function in a folder, says of a model."""
  path, *rest = place
  if rest:
    return single_file.read(path, *rest, prediction)
  if prediction is not None:
    raise ValueError("the folder says itself what its UNet predicts.")
  return read_folder(path)


def _put_together(text_encoder, autoencoder, denoiser, noise, dtype):
  """(model.Model, schedule.NoiseSchedule) of the configs of a model."""
  model = model_lib.Model(text_encoder, autoencoder, denoiser, dtype)
  return model, schedule.make(noise)


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
