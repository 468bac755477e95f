"""A Stable Diffusion as pure functions of its parameters.

B images, H W pixels, h w latent pixels, C latent channels, N tokens, E
embedding width. Whatever the dtype of the arithmetic, arguments and results
are float32: the casts stand here.
"""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamjax.diffusion import clip
from dreamjax.diffusion import schedule as schedule_lib
from dreamjax.diffusion import text
from dreamjax.diffusion import unet
from dreamjax.diffusion import vae

DTYPES = ("float32", "bfloat16")

COMPONENTS = ("text_encoder", "vae", "unet")
"""The networks, by the name of their folder; the keys of the parameters."""


@dataclasses.dataclass(frozen=True)
class Model:
  """The static part: shapes and functions, no arrays; hashable.

  Attributes:
    text_encoder: shape of the text tower.
    vae: shape of the autoencoder.
    unet: shape of the denoiser.
    dtype: of the arithmetic, one of `DTYPES`; a name or a dtype.
  """

  text_encoder: clip.CLIPConfig
  vae: vae.VAEConfig
  unet: unet.UNetConfig
  dtype: Any = "float32"

  def __post_init__(self):
    object.__setattr__(self, "dtype", jnp.dtype(self.dtype))
    if self.dtype.name not in DTYPES:
      raise ValueError(
          f"Model: dtype is {self.dtype.name}, want {' or '.join(DTYPES)}."
      )
    latent, context = self.vae.latent_channels, self.text_encoder.hidden_size
    for name, value, want, source in (
        ("in_channels", self.unet.in_channels, latent, "the VAE's latents"),
        ("out_channels", self.unet.out_channels, latent, "the VAE's latents"),
        ("cross_attention_dim", self.unet.cross_attention_dim, context,
         "the text encoder's embeddings"),
    ):
      if value != want:
        raise ValueError(
            f"unet/config.json: {name} is {value} but {source} have {want};"
            " inpainting, depth and image-variation models are not supported."
        )

  @property
  def image_size(self) -> int:
    """Side of the images that the UNet was made for."""
    return self.unet.sample_size * self.vae.factor

  def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
    """(h, w, C) of an image's latent.

    Raises:
      ValueError: the sides do not suit the autoencoder and the UNet.
    """
    multiple = self.vae.factor * 2 ** (len(self.unet.block_out_channels) - 1)
    if height % multiple or width % multiple or min(height, width) <= 0:
      raise ValueError(
          f"Image is {height}x{width}, want sides that are multiples of"
          f" {multiple}."
      )
    factor = self.vae.factor
    return height // factor, width // factor, self.vae.latent_channels

  def encode_text(self, params: dict[str, Any], token: jax.Array) -> jax.Array:
    """Token ids i32[B, N] to embeddings f32[B, N, E]."""
    module = clip.CLIPText(self.text_encoder, self.dtype)
    return _apply(module, params["text_encoder"], token)

  def encode_image(self, params: dict[str, Any], image: jax.Array) -> jax.Array:
    """Image f32[B, H, W, 3] in [0, 1] to latent f32[B, h, w, C].

    The posterior's mean times the scaling factor: no noise, so that the
    gradient with respect to the image is exact.
    """
    module = vae.AutoencoderKL(self.vae, self.dtype)
    mean, _ = module.apply(
        {"params": params["vae"]}, 2.0 * image - 1.0, method="encode"
    )
    return mean.astype(jnp.float32) * self.vae.scaling_factor

  def decode_image(
      self, params: dict[str, Any], latent: jax.Array
  ) -> jax.Array:
    """Latent f32[B, h, w, C] to image f32[B, H, W, 3], about in [0, 1]."""
    module = vae.AutoencoderKL(self.vae, self.dtype)
    latent = latent / self.vae.scaling_factor
    image = _apply(module, params["vae"], latent, method="decode")
    return 0.5 * image + 0.5

  def denoise(
      self,
      params: dict[str, Any],
      noisy: jax.Array,
      t: jax.Array,
      context: jax.Array,
  ) -> jax.Array:
    """Raw prediction of the UNet; see schedule.py for its meaning.

    Args:
      params: of all networks.
      noisy: f32[B, h, w, C], noisy latent.
      t: i32[B], timesteps.
      context: f32[B, N, E], text embedding.
    Returns:
      f32[B, h, w, C].
    """
    module = unet.UNet(self.unet, self.dtype)
    return _apply(module, params["unet"], noisy, t, context)

  def distillation_params(
      self, params: dict[str, Any], with_decoder: bool
  ) -> dict[str, Any]:
    """The parameters that `encode_image` and `denoise` read.

    Args:
      params: of all networks.
      with_decoder: whether those of `decode_image` are needed too.
    """
    names = ("encoder", "quant_conv")
    if with_decoder:
      names += ("decoder", "post_quant_conv")
    vae_params = {name: params["vae"][name] for name in names}
    return {"vae": vae_params, "unet": params["unet"]}

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Fresh parameters of all networks, float32."""
    side = self.vae.factor
    image = jnp.zeros((1, side, side, self.vae.in_channels))
    side = 2 ** (len(self.unet.block_out_channels) - 1)
    noisy = jnp.zeros((1, side, side, self.unet.in_channels))
    context = jnp.zeros((1, 1, self.unet.cross_attention_dim))
    time = jnp.zeros((1,), jnp.int32)
    arguments = {
        "text_encoder": (clip.CLIPText(self.text_encoder), time[None]),
        "vae": (vae.AutoencoderKL(self.vae), image),
        "unet": (unet.UNet(self.unet), noisy, time, context),
    }
    keys = jax.random.split(key, len(arguments))
    return {
        name: module.init(key, *rest)["params"]
        for key, (name, (module, *rest)) in zip(keys, arguments.items())
    }

  def shapes(self) -> dict[str, Any]:
    """Parameters of all networks as jax.ShapeDtypeStruct, float32."""
    return jax.eval_shape(self.init, jax.random.key(0))


def _apply(module, params, *args, **kwargs):
  return module.apply({"params": params}, *args, **kwargs).astype(jnp.float32)


class StableDiffusion(NamedTuple):
  """All that a model folder holds, the arrays apart from what is static.

  Attributes:
    model: static; an argument of jit by name.
    params: dict with keys `COMPONENTS`.
    schedule: a pytree.
    tokenizer: on the host.
  """

  model: Model
  params: dict[str, Any]
  schedule: schedule_lib.NoiseSchedule
  tokenizer: text.Tokenizer


class Parts(NamedTuple):
  """What a model's folder or file holds, read but not yet put together.

  Attributes:
    text_encoder: shape of the text tower.
    vae: shape of the autoencoder.
    unet: shape of the denoiser.
    schedule: the noise schedule.
    arrays: by component, tensors under their checkpoint keys.
    tokenizer: the tokenizer's folder.
    padding: id that fills short texts, or None for the tokenizer's own.
  """

  text_encoder: clip.CLIPConfig
  vae: vae.VAEConfig
  unet: unet.UNetConfig
  schedule: schedule_lib.ScheduleConfig
  arrays: dict[str, dict[str, np.ndarray]]
  tokenizer: pathlib.Path
  padding: int | None = None
