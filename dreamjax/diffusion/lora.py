"""Low-rank changes of a model's weights (Hu et al. 2021, section 4.1).

W <- W + scale alpha / r up down, with down [r, in] and up [out, r]; for a
convolution down is one to r channels and up one of a single pixel. alpha is r
where a file does not say.

Files name the layers in diffusers' words (of PEFT, or as before it) or, by
kohya's scripts, with underscores for dots. Both are compared with underscores.
"""

import json
import math
import pathlib
import re
from typing import Any

import numpy as np

from dreamjax.diffusion import keys
from dreamjax.diffusion import tensors

ROLES = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    "_lora.alpha": "alpha",
    ".lora.alpha": "alpha",
    ".alpha": "alpha",
}
"""What a tensor is, by the end of its name; longer ends come first."""

OTHERS = {
    "lora_mid": "a Tucker decomposition",
    "hada_": "a LoHa",
    "lokr_": "a LoKr",
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
    "lora_te1_": "a LoRA of Stable Diffusion XL",
    "lora_te2_": "a LoRA of Stable Diffusion XL",
    "text_encoder_2.": "a LoRA of Stable Diffusion XL",
}
"""What a file is whose names hold such a piece."""

NOTES = "lora_adapter_metadata"
"""Where diffusers notes PEFT's settings."""

Arrays = dict[str, dict[str, np.ndarray]]


def merge(arrays: Arrays, path: str | pathlib.Path, scale: float) -> Arrays:
  """The arrays with a LoRA added, as float32 where it acts.

  Args:
    arrays: by component, tensors under today's checkpoint keys.
    path: the LoRA, a safetensors file.
    scale: its strength; 1 is what it was trained for.
  Returns:
    New dicts; untouched arrays are shared.
  Raises:
    WeightsError: the file is unusable, of another kind, or for another model.
  """
  path = pathlib.Path(path)
  layers = _layers(path)
  alphas = _noted_alphas(path)
  targets = {
      (part, name.removesuffix(".weight").replace(".", "_")): name
      for part in ("unet", "text_encoder")
      for name in arrays[part]
      if name.endswith(".weight")
  }
  strange = sorted(
      given["name"] for layer, given in layers.items() if layer not in targets
  )
  if strange:
    raise tensors.WeightsError(
        f"{path}: {len(strange)} of {len(layers)} layers are not in these"
        f" weights, first {strange[0]!r}; the LoRA is for another model."
    )
  result = {part: dict(part_arrays) for part, part_arrays in arrays.items()}
  for (part, layer), given in layers.items():
    name = targets[part, layer]
    weight = arrays[part][name].astype(np.float32)
    delta = _delta(path, given, weight.shape, alphas.get(part))
    result[part][name] = weight + np.float32(scale) * delta
  return result


def _layers(path):
  """{(component, layer): {role: array, "name": of one tensor}}."""
  layers = {}
  for name, array in tensors.read(path).items():
    for piece, kind in OTHERS.items():
      if piece in name:
        raise tensors.WeightsError(
            f"{path}: {kind} ({name!r}), which is not supported; want a plain"
            " LoRA for Stable Diffusion 1.x or 2.x."
        )
    end = next(filter(name.endswith, ROLES), None)
    if end is None:
      raise tensors.WeightsError(f"{path}: {name!r} is no tensor of a LoRA.")
    given = layers.setdefault(_place(name.removesuffix(end)), {"name": name})
    if ROLES[end] in given:
      raise tensors.WeightsError(
          f"{path}: {name!r} is there twice, under two names."
      )
    given[ROLES[end]] = keys.finite(array, f"{path}: {name}")
  if not layers:
    raise tensors.WeightsError(f"{path}: it holds no tensors.")
  return layers


def _place(name):
  """(component, layer with underscores) of a name without its end."""
  part = "unet"  # Where the oldest files have no prefix.
  for prefix, component in (
      ("unet.", "unet"),
      ("lora_unet_", "unet"),
      ("text_encoder.", "text_encoder"),
      ("lora_te_", "text_encoder"),
  ):
    if name.startswith(prefix):
      part, name = component, name.removeprefix(prefix)
      break
  name = name.replace(".processor.", ".").replace(".", "_")
  if part == "text_encoder":
    name = name.removeprefix("text_model_")
    return part, re.sub("_attn_to_(q|k|v|out)$", r"_attn_\1_proj", name)
  return part, re.sub("_to_out$", "_to_out_0", name)


def _delta(path, given, shape, noted):
  """f32, what is added to a weight of that shape at scale 1."""
  name = given["name"]
  if "down" not in given or "up" not in given:
    raise tensors.WeightsError(
        f"{path}: {name!r} lacks its other half; want up and down."
    )
  down, up = given["down"], given["up"]
  rank = down.shape[0] if down.ndim else 0
  alpha = given.get("alpha", np.float32(rank if noted is None else noted))
  fits = (
      rank > 0
      and down.ndim in (2, 4)
      and up.ndim in (2, 4)
      and up.shape[2:] in ((), (1, 1))
      and up.shape[1] == rank
      and keys.without_pixel((len(up), *down.shape[1:]))
      == keys.without_pixel(shape)
      and alpha.size == 1
  )
  if not fits:
    raise tensors.WeightsError(
        f"{path}: {name!r} has down {down.shape}, up {up.shape} and alpha"
        f" {alpha.shape} for a weight {shape}; the LoRA is for another model."
    )
  product = up.reshape(up.shape[:2]) @ down.reshape(rank, -1)
  return (alpha.reshape(()) / rank * product).reshape(shape)


def _noted_alphas(path) -> dict[str, Any]:
  """alpha by component, where the file notes PEFT's settings."""
  text = tensors.read_metadata(path).get(NOTES, "{}")
  try:
    notes = json.loads(text)
    alphas = {
        part: notes.get(f"{part}.lora_alpha")
        for part in ("unet", "text_encoder")
    }
    for part, alpha in alphas.items():
      if alpha is not None:
        alphas[part] = float(alpha)
        if not math.isfinite(alphas[part]):
          raise ValueError(f"lora_alpha is {alpha}")
      for setting in ("use_rslora", "use_dora", "alpha_pattern"):
        if notes.get(f"{part}.{setting}"):
          raise ValueError(f"{setting} is not supported")
  except (AttributeError, TypeError, ValueError, RecursionError) as error:
    raise tensors.WeightsError(f"{path}: {NOTES}: {error}.") from error
  return alphas
