"""What a step asks of the prior, for views in groups of a size.

V views of H x W pixels; h x w latent pixels, C latent channels.
"""

import jax
from jax import lax
import jax.numpy as jnp

from dreamjax import chunks

# A blur by one pixel of standard deviation (variances of 1/4 four times).
_BLUR = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def needed(config, model, params):
  """Those of a model's parameters that a step reads.

  Args:
    config: config.GuidanceConfig.
    model: diffusion.model.Model, or anything with its functions.
    params: of all its networks.
  """
  return model.distillation_params(params, config.residual == "image")


def shapes(config, model):
  """Sizes of what the prior sees, (H, W, 3) and (h, w, C).

  Args:
    config: config.GuidanceConfig.
    model: diffusion.model.Model, or anything with its functions.
  Raises:
    ValueError: the config's sizes do not suit the model, or its latents are
      not of the kind that normals can stand for.
  """
  size = _size(config, model)
  latent = model.latent_shape(size, size)
  if config.latent_warmup and latent[-1] != 4:
    raise ValueError(
        f"GuidanceConfig: latent_warmup is {config.latent_warmup}, but the"
        f" model's latents have {latent[-1]} channels; normals and opacity"
        " stand for 4."
    )
  return (size, size, 3), latent


def _size(config, model):
  return config.image_size or model.image_size


def resize(config, model, image):
  """Images f32[V, H, W, 3] in the size that the config or the model wants."""
  size = _size(config, model)
  return jax.image.resize(image, (image.shape[0], size, size, 3), "linear")


def normals_as_latents(config, model, images):
  """Normals and opacity in [-1, 1] in the shape of latents, f32[V, h, w, 4].

  To Stable Diffusion's denoiser they look like a latent of something with that
  outline, so that shapes are found without the encoder (Chen et al. 2023,
  "Fantasia3D", section 3.2).

  Args:
    config: config.GuidanceConfig.
    model: as for `shapes`.
    images: render.Rendering with normals.
  """
  _, shape = shapes(config, model)
  opacity = 2 * images.opacity[..., None] - 1
  image = jnp.concatenate([images.normal, opacity], axis=-1)
  return jax.image.resize(image, (image.shape[0], *shape), "linear")


def encode(config, model, params, image):
  """Latents f32[V, h, w, C] of images f32[V, H, W, 3] in [0, 1].

  Args:
    config: config.GuidanceConfig.
    model: as for `needed`.
    params: of `needed`.
    image: of `resize`.
  """
  return chunks.map_groups(
      lambda image: model.encode_image(params, image),
      image,
      config.views_per_call,
  )


def decode(config, model, params, latent):
  """Images f32[V, H, W, 3] of latents, sharpened as the config wants.

  Arguments as of `encode`.
  """
  image = chunks.map_groups(
      lambda latent: model.decode_image(params, latent),
      latent,
      config.views_per_call,
  )
  return sharpen(image, config.sharpen) if config.sharpen else image


def sharpen(image, strength):
  """Unsharp mask: image + strength (image - its blur), in [0, 1].

  The blur is by one pixel of standard deviation; beyond the edges the nearest
  pixel goes on.

  Args:
    image: f32[V, H, W, 3].
    strength: of the mask.
  Returns:
    f32[V, H, W, 3].
  """
  blurred = image
  for axis in (1, 2):
    margin = [(2, 2) if i == axis else (0, 0) for i in range(image.ndim)]
    padded = jnp.pad(blurred, margin, mode="edge")
    size = image.shape[axis]
    blurred = sum(
        weight * lax.slice_in_dim(padded, i, i + size, axis=axis)
        for i, weight in enumerate(_BLUR)
    )
  return jnp.clip(image + strength * (image - blurred), 0.0, 1.0)


def denoiser(config, model, params):
  """`denoise` as guidance.sds.gradient wants it; arguments as of `encode`."""
  size = config.branches * config.noise_samples * config.views_per_call
  return lambda *batch: chunks.map_groups(
      lambda batch: model.denoise(params, *batch), batch, size
  )
