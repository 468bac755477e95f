"""Names of the original Stable Diffusion code, turned into diffusers' names.

The original code (Rombach et al. 2022, github.com/CompVis/latent-diffusion)
keeps a whole model in one file and numbers what diffusers names. Every
function takes a name without its part's prefix and gives the name that
diffusers or transformers use, or None for a name that has no place there.
"""

import re

UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}

UNET_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}

VAE_ENDS = {
    "quant_conv": "quant_conv",
    "post_quant_conv": "post_quant_conv",
} | {
    f"{half}.{old}": f"{half}.{new}"
    for half in ("encoder", "decoder")
    for old, new in (
        ("conv_in", "conv_in"),
        ("norm_out", "conv_norm_out"),
        ("conv_out", "conv_out"),
    )
}

VAE_RESNET = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "nin_shortcut": "conv_shortcut",
}

VAE_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}

OPEN_CLIP = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}

OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def unet_name(name: str, layers: int) -> str | None:
  """Name in UNet2DConditionModel.

  Args:
    name: what follows "model.diffusion_model.".
    layers: residual blocks per resolution going down.
  """
  module, _, leaf = name.rpartition(".")
  if module in UNET_ENDS:
    return f"{UNET_ENDS[module]}.{leaf}"
  if match := re.fullmatch(r"middle_block\.([012])\.(.+)", module):
    place = ("resnets.0", "attentions.0", "resnets.1")[int(match[1])]
    place, rest = f"mid_block.{place}", match[2]
  elif match := re.fullmatch(
      r"(in|out)put_blocks\.(\d{1,3})\.([012])\.(.+)", module
  ):
    down, rest = match[1] == "in", match[4]
    # The first input block is conv_in.
    level, index = divmod(int(match[2]) - down, layers + 1)
    block = f"{'down' if down else 'up'}_blocks.{level}"
    if down and index == layers:
      return f"{block}.downsamplers.0.conv.{leaf}" if rest == "op" else None
    if not down and rest == "conv":
      return f"{block}.upsamplers.0.conv.{leaf}"
    place = f"{block}.{'attentions' if match[3] == '1' else 'resnets'}.{index}"
  else:
    return None
  new = rest if "attentions" in place else UNET_RESNET.get(rest)
  return new and f"{place}.{new}.{leaf}"


def vae_name(name: str, levels: int) -> str | None:
  """Name in AutoencoderKL.

  Args:
    name: what follows "first_stage_model.".
    levels: number of resolutions.
  """
  module, _, leaf = name.rpartition(".")
  if module in VAE_ENDS:
    return f"{VAE_ENDS[module]}.{leaf}"
  if match := re.fullmatch(r"(..coder)\.mid\.attn_1\.(\w+)", module):
    new = VAE_ATTENTION.get(match[2])
    return new and f"{match[1]}.mid_block.attentions.0.{new}.{leaf}"
  if match := re.fullmatch(r"(..coder)\.mid\.block_([12])\.(\w+)", module):
    place, rest = f"{match[1]}.mid_block", match[3]
    index = int(match[2]) - 1
  elif match := re.fullmatch(
      r"(encoder\.down|decoder\.up)\.(\d)\."
      r"(?:block\.(\d)\.(\w+)|(downsample|upsample)\.conv)",
      module,
  ):
    level = int(match[2])
    if match[1] == "encoder.down":
      place = f"encoder.down_blocks.{level}"
    else:  # Here the finest is the first, in diffusers the last.
      place = f"decoder.up_blocks.{levels - 1 - level}"
    if match[5]:
      return f"{place}.{match[5]}rs.0.conv.{leaf}"
    index, rest = int(match[3]), match[4]
  else:
    return None
  new = VAE_RESNET.get(rest)
  return new and f"{place}.resnets.{index}.{new}.{leaf}"


def open_clip_name(name: str) -> str | None:
  """Name in CLIPTextModel.

  Args:
    name: what follows "cond_stage_model.model.", the attention's projections
      already apart.
  """
  if name in OPEN_CLIP:
    return OPEN_CLIP[name]
  match = re.fullmatch(
      r"transformer\.resblocks\.(\d{1,3})\.(.+)\.(weight|bias)", name
  )
  new = match and OPEN_CLIP_LAYER.get(match[2])
  return new and f"encoder.layers.{match[1]}.{new}.{match[3]}"
