"""Whole models in one safetensors file, as the original code stores them.

Such a file has no config. The shapes of its tensors tell all but four things:
the number of attention heads, the activation and the groups of the norms,
which are those of the family; and what the UNet predicts, which must be said
for 2.x. The family is told by the text tower: OpenAI's in 1.x, OpenCLIP's in
2.x. There is no tokenizer either; all these models share CLIP's.
"""

import functools
import pathlib
import re

import numpy as np

from dreamjax.diffusion import clip
from dreamjax.diffusion import hub
from dreamjax.diffusion import keys
from dreamjax.diffusion import ldm
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import schedule
from dreamjax.diffusion import tensors
from dreamjax.diffusion import unet
from dreamjax.diffusion import vae

PREFIXES = {
    "model.diffusion_model.": "unet",
    "first_stage_model.": "vae",
    "cond_stage_model.transformer.": "text_encoder",
    "cond_stage_model.model.": "open_clip",
}
"""Where each part is."""

IGNORED = re.compile(
    # What training leaves: averages, losses, the noise schedule's tables.
    r"model_ema\..*|first_stage_model\.loss\..*|logvar|lvlb_weights"
    r"|betas|(sqrt_|log_|sqrt_recip_|sqrt_recipm1_)?(one_minus_)?"
    r"alphas_cumprod(_prev)?|posterior_\w+"
    # A buffer 0, 1, 2, ...; the head that compares texts with images.
    r"|cond_stage_model\..*\.position_ids"
    r"|cond_stage_model\.model\.(text_projection|logit_scale|attn_mask)"
    r"|cond_stage_model\.(text_projection|logit_scale)"
    # 2.x conditions on what OpenCLIP's last but one layer says.
    r"|cond_stage_model\.model\.transformer\.resblocks\.23\..*"
)
"""Tensors that such files hold and that no image depends on."""

HEAD = 64
"""Width of an attention head, of the text towers and of 2.x's UNet."""

HEADS = 8
"""Attention heads at every resolution of 1.x's UNet."""


def tokenizer_folder(path: pathlib.Path) -> pathlib.Path:
  """The folder `tokenizer` beside the file, or CLIP's from the hub.

  Raises:
    WeightsError: neither is to be had.
  """
  beside = path.parent / "tokenizer"
  if beside.is_dir():
    return beside
  try:
    return hub.tokenizer()
  except tensors.WeightsError as error:
    raise tensors.WeightsError(
        f"{path} holds no tokenizer, and there is no folder {beside}. Put the"
        " tokenizer folder of any Stable Diffusion 1.x or 2.x there. The hub"
        f" was asked too: {error}"
    ) from error


def read(
    path: pathlib.Path, tokenizer: pathlib.Path, prediction: str | None = None
) -> model_lib.Parts:
  """A Stable Diffusion 1.x or 2.x from a file in the original layout.

  Args:
    path: the file; all float types do.
    tokenizer: the tokenizer's folder.
    prediction: one of schedule.PREDICTIONS; None means epsilon for 1.x and is
      refused for 2.x, whose files do not tell.
  Raises:
    WeightsError: the file is unusable or of another family, or `prediction` is
      wanted.
    ValueError: `prediction` is unknown, or the shapes fit no model.
  """
  found = _split(path, tensors.read(path))
  is_second = bool(found["open_clip"])
  if is_second and prediction is None:
    raise tensors.WeightsError(
        f"{path}: a Stable Diffusion 2.x, and its file does not say what the"
        " UNet predicts. Give --prediction=epsilon for the base models (512"
        " pixels) or --prediction=v_prediction for the others (768 pixels)."
    )
  arrays = {
      "text_encoder": found["text_encoder"]
      or _renamed(path, _apart(found["open_clip"]), ldm.open_clip_name),
      "vae": _renamed(
          path,
          found["vae"],
          functools.partial(ldm.vae_name, levels=_levels(found["vae"])),
      ),
      "unet": _renamed(
          path,
          found["unet"],
          functools.partial(ldm.unet_name, layers=_layers(found["unet"])),
      ),
  }
  arrays = {
      name: keys.today(part, f"{path}: {name}") for name, part in arrays.items()
  }
  side = 96 if is_second and prediction == "v_prediction" else 64
  return model_lib.Parts(
      _text_config(path, arrays["text_encoder"], is_second),
      _vae_config(path, arrays["vae"], side),
      _unet_config(path, arrays["unet"], is_second, side),
      schedule.ScheduleConfig(prediction_type=prediction or "epsilon"),
      arrays,
      tokenizer,
      # OpenCLIP fills with zeros, OpenAI's tokenizer with its end token.
      padding=0 if is_second else None,
  )


def _split(path, arrays):
  """The arrays by part, without the prefixes."""
  advice = (
      "want a whole Stable Diffusion 1.x or 2.x in the original layout (a LoRA"
      " goes to --lora, a textual inversion to --embedding)."
  )
  found = {part: {} for part in PREFIXES.values()}
  unknown = []
  for name, array in arrays.items():
    prefix = next(filter(name.startswith, PREFIXES), None)
    if IGNORED.fullmatch(name):
      continue
    if prefix is None:
      unknown.append(name)
    elif not array.size:
      raise tensors.WeightsError(f"{path}: {name} is empty, {array.shape}.")
    else:
      found[PREFIXES[prefix]][name.removeprefix(prefix)] = array
  if any(name.startswith("conditioner.") for name in unknown):
    raise tensors.WeightsError(f"{path}: a Stable Diffusion XL; {advice}")
  if unknown:
    raise tensors.WeightsError(
        f"{path}: {len(unknown)} tensors are unknown, first {min(unknown)!r};"
        f" {advice}"
    )
  for prefix in ("model.diffusion_model.", "first_stage_model."):
    if not found[PREFIXES[prefix]]:
      raise tensors.WeightsError(f"{path}: no tensors {prefix}*; {advice}")
  if bool(found["text_encoder"]) == bool(found["open_clip"]):
    raise tensors.WeightsError(
        f"{path}: want either cond_stage_model.transformer.* (1.x) or"
        f" cond_stage_model.model.* (2.x); {advice}"
    )
  return found


def _apart(arrays):
  """OpenCLIP's query, key and value projections as three tensors."""
  result = {}
  for name, array in arrays.items():
    stem, joint, leaf = name.partition(".attn.in_proj_")
    if joint and array.ndim and array.shape[0] % 3 == 0:
      for part, piece in zip("qkv", np.split(array, 3)):
        result[f"{stem}.attn.{part}_proj.{leaf}"] = piece
    else:
      result[name] = array
  return result


def _renamed(path, arrays, rename):
  """The arrays under diffusers' names."""
  result = {}
  for name, array in arrays.items():
    new = rename(name)
    if new is None or new in result:
      fault = "unknown" if new is None else f"there twice, as {new!r}"
      raise tensors.WeightsError(f"{path}: {name!r} is {fault}.")
    result[new] = array
  return result


def _numbers(names, pattern):
  """The numbers that a pattern finds in names."""
  return {int(found[1]) for found in map(re.compile(pattern).match, names)
          if found}


def _layers(names):
  """Residual blocks per resolution of the UNet: what precedes a downsampler."""
  ends = _numbers(names, r"input_blocks\.(\d{1,3})\.0\.op\.")
  blocks = _numbers(names, r"input_blocks\.(\d{1,3})\.")
  return max(1, min(ends or {len(blocks)}) - 1)


def _levels(names):
  """Resolutions of the autoencoder."""
  return len(_numbers(names, r"decoder\.up\.(\d)\."))


def _size(source, arrays, name, axis):
  """Length of one axis of a tensor that must be there."""
  if name not in arrays or arrays[name].ndim <= axis:
    raise tensors.WeightsError(
        f"{source}: {name} is missing or no matrix; the file is no Stable"
        " Diffusion 1.x or 2.x."
    )
  return arrays[name].shape[axis]


def _text_config(path, arrays, is_second):
  size = functools.partial(_size, path, arrays)
  width = size("embeddings.token_embedding.weight", 1)
  return clip.CLIPConfig(
      vocab_size=size("embeddings.token_embedding.weight", 0),
      hidden_size=width,
      intermediate_size=size("encoder.layers.0.mlp.fc1.weight", 0),
      num_hidden_layers=len(_numbers(arrays, r"encoder\.layers\.(\d+)\.")),
      num_attention_heads=max(1, width // HEAD),
      max_position_embeddings=size("embeddings.position_embedding.weight", 0),
      hidden_act="gelu" if is_second else "quick_gelu",
  )


def _vae_config(path, arrays, side):
  size = functools.partial(_size, path, arrays)
  levels = len(_numbers(arrays, r"encoder\.down_blocks\.(\d+)\."))
  resnets = r"encoder\.down_blocks\.0\.resnets\.(\d+)\."
  return vae.VAEConfig(
      sample_size=side * 2 ** (levels - 1),
      in_channels=size("encoder.conv_in.weight", 1),
      out_channels=size("decoder.conv_out.weight", 0),
      latent_channels=size("post_quant_conv.weight", 0),
      block_out_channels=tuple(
          size(f"encoder.down_blocks.{i}.resnets.0.conv1.weight", 0)
          for i in range(levels)
      ),
      layers_per_block=len(_numbers(arrays, resnets)),
  )


def _unet_config(path, arrays, is_second, side):
  size = functools.partial(_size, path, arrays)
  levels = len(_numbers(arrays, r"down_blocks\.(\d+)\."))
  widths = tuple(
      size(f"down_blocks.{i}.resnets.0.conv1.weight", 0) for i in range(levels)
  )
  kinds = [
      "CrossAttn{}Block2D"
      if f"down_blocks.{i}.attentions.0.proj_in.weight" in arrays
      else "{}Block2D"
      for i in range(levels)
  ]
  mix, attend = "mid_block.attentions.0", "transformer_blocks.0.attn2.to_k"
  context = size(f"{mix}.{attend}.weight", 1)
  size(f"{mix}.proj_in.weight", 1)
  return unet.UNetConfig(
      sample_size=side,
      in_channels=size("conv_in.weight", 1),
      out_channels=size("conv_out.weight", 0),
      down_block_types=tuple(kind.format("Down") for kind in kinds),
      up_block_types=tuple(kind.format("Up") for kind in kinds[::-1]),
      block_out_channels=widths,
      layers_per_block=len(
          _numbers(arrays, r"down_blocks\.0\.resnets\.(\d+)\.")
      ),
      attention_head_dim=tuple(max(1, width // HEAD) for width in widths)
      if is_second
      else HEADS,
      cross_attention_dim=context,
      use_linear_projection=arrays[f"{mix}.proj_in.weight"].ndim == 2,
  )
