"""The text tower of CLIP (Radford et al. 2021, section 2.4).

The same network as transformers' CLIPTextModel, shaped by that model's
config.json. Stable Diffusion 1.x has OpenAI's tower, 2.x has OpenCLIP's.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dreamjax.diffusion import layers
from dreamjax.diffusion import settings

ACTIVATIONS = {"quick_gelu": layers.quick_gelu, "gelu": layers.gelu}


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
  """Shape of a text tower; names and defaults are those of transformers.

  Attributes:
    vocab_size: number of tokens.
    hidden_size: width of the embedding.
    intermediate_size: hidden width of the MLPs.
    num_hidden_layers: transformer layers.
    num_attention_heads: heads of each.
    max_position_embeddings: longest sequence.
    hidden_act: a key of `ACTIVATIONS`.
    layer_norm_eps: epsilon of the norms.
  """

  vocab_size: int = 49408
  hidden_size: int = 512
  intermediate_size: int = 2048
  num_hidden_layers: int = 12
  num_attention_heads: int = 8
  max_position_embeddings: int = 77
  hidden_act: str = "quick_gelu"
  layer_norm_eps: float = 1e-5

  def __post_init__(self):
    if self.hidden_act not in ACTIVATIONS:
      raise ValueError(
          f"CLIPConfig: hidden_act is {self.hidden_act!r}, want one of"
          f" {', '.join(ACTIVATIONS)}."
      )
    if self.hidden_size % self.num_attention_heads:
      raise ValueError(
          f"CLIPConfig: hidden_size {self.hidden_size} cannot be split into"
          f" {self.num_attention_heads} heads."
      )


def read_config(values):
  """CLIPConfig of the parsed text_encoder/config.json.

  Keys without a field are skipped: transformers writes dozens that concern
  training and generation. What could be another network is told by
  model_type and architectures.
  """
  kind = values.get("model_type")
  names = values.get("architectures") or ["CLIPTextModel"]
  if kind != "clip_text_model" or names != ["CLIPTextModel"]:
    raise ValueError(
        f"text_encoder/config.json: model_type is {kind!r} with architectures"
        f" {names}, want 'clip_text_model' with ['CLIPTextModel']."
    )
  return settings.read(
      "text_encoder/config.json", values, CLIPConfig, {}, ignore_others=True
  )


class CLIPText(nn.Module):
  """Tokens to one embedding each.

  Attributes:
    config: CLIPConfig.
    dtype: of the arithmetic.
  """

  config: CLIPConfig
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, token):
    """Last hidden state after the final norm.

    Args:
      token: i32[B, N], N <= max_position_embeddings.
    Returns:
      [B, N, hidden_size] in `dtype`.
    """
    config = self.config
    init = nn.initializers.normal(0.02)
    words = nn.Embed(
        config.vocab_size,
        config.hidden_size,
        dtype=self.dtype,
        embedding_init=init,
        name="embeddings.token_embedding",
    )
    places = nn.Embed(
        config.max_position_embeddings,
        config.hidden_size,
        dtype=self.dtype,
        embedding_init=init,
        name="embeddings.position_embedding",
    )
    x = words(token) + places(jnp.arange(token.shape[1]))
    for i in range(config.num_hidden_layers):
      x = _Layer(config, self.dtype, name=f"encoder.layers.{i}")(x)
    return layers.LayerNorm(config.layer_norm_eps, name="final_layer_norm")(x)


class _Layer(nn.Module):
  config: CLIPConfig
  dtype: Any

  @nn.compact
  def __call__(self, x):
    config = self.config
    dense = lambda size, name, init=nn.initializers.lecun_normal(): nn.Dense(
        size, dtype=self.dtype, kernel_init=init, name=name
    )
    # Residual branches start small, so that depth does not raise the norm.
    small = nn.initializers.variance_scaling(
        0.5 / config.num_hidden_layers, "fan_in", "normal"
    )
    norm = lambda name: layers.LayerNorm(config.layer_norm_eps, name=name)
    h = norm("layer_norm1")(x)
    query, key, value = (
        dense(config.hidden_size, f"self_attn.{name}_proj")(h).reshape(
            *h.shape[:2], config.num_attention_heads, -1
        )
        for name in "qkv"
    )
    h = layers.attend(query, key, value, causal=True).reshape(x.shape)
    x = x + dense(config.hidden_size, "self_attn.out_proj", small)(h)
    h = norm("layer_norm2")(x)
    h = ACTIVATIONS[config.hidden_act](
        dense(config.intermediate_size, "mlp.fc1")(h)
    )
    return x + dense(config.hidden_size, "mlp.fc2", small)(h)
