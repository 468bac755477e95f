"""The shape of the toybox's Stable Diffusion, and its tokenizer."""

import string

from dreamjax.diffusion import clip
from dreamjax.diffusion import model
from dreamjax.diffusion import schedule
from dreamjax.diffusion import text
from dreamjax.diffusion import unet
from dreamjax.diffusion import vae
from dreamjax.toybox import words

LENGTH = 16
"""Tokens of a caption, start and end included."""


def vocabulary():
  """Byte-pair tables in which every word of the toybox is one token.

  Letters are tokens too, so that other words are spelt, not lost.

  Returns:
    (token -> id, list of merges), for diffusion.text.write.
  """
  letters = list(string.ascii_lowercase) + [","]
  tokens = [text.START, text.END, *letters, *(f"{c}</w>" for c in letters)]
  merges = []
  for word in words.VOCABULARY:
    symbols = _spell(word, merges)
    # Later merges are less urgent: they cannot change the words before.
    while len(symbols) > 1:
      merges.append((symbols[0], symbols[1]))
      tokens.append(symbols[0] + symbols[1])
      symbols = _spell(word, merges)
  return {token: index for index, token in enumerate(tokens)}, merges


def _spell(word, merges):
  """A word's tokens under byte-pair encoding (Sennrich et al. 2016)."""
  symbols = [*word[:-1], f"{word[-1]}</w>"]
  for pair in merges:
    index = 0
    while index + 1 < len(symbols):
      if (symbols[index], symbols[index + 1]) == pair:
        symbols[index : index + 2] = [pair[0] + pair[1]]
      index += 1
  return symbols


MODEL = model.Model(
    clip.CLIPConfig(
        vocab_size=160,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
    ),
    vae.VAEConfig(
        sample_size=64,
        block_out_channels=(16, 32, 64),
        norm_num_groups=8,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    ),
    unet.UNetConfig(
        sample_size=16,
        # No attention among the 256 finest pixels: a third of the arithmetic
        # for little.
        down_block_types=(
            "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"
        ),
        up_block_types=(
            "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"
        ),
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=128,
        norm_num_groups=8,
        use_linear_projection=True,
    ),
)
"""64-pixel images, 16 x 16 x 4 latents of mean 0 and covariance 1."""

SCHEDULE = schedule.ScheduleConfig(prediction_type="v_prediction")
