"""What a step asks of the prior, for views in groups of a size.

V views of H x W pixels; h x w latent pixels, C latent channels.
"""

import jax

from dreamjax import chunks


def needed(config, model, params):
  """Those of a model's parameters that a step reads.

  Args:
    config: config.GuidanceConfig.
    model: diffusion.model.Model, or anything with its functions.
    params: of all its networks.
  """
  return model.distillation_params(params, config.residual == "image")


def resize(config, model, image):
  """Images f32[V, H, W, 3] in the size that the config or the model wants."""
  size = config.image_size or model.image_size
  return jax.image.resize(image, (image.shape[0], size, size, 3), "linear")


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
  """Images f32[V, H, W, 3] of latents; arguments as of `encode`."""
  return chunks.map_groups(
      lambda latent: model.decode_image(params, latent),
      latent,
      config.views_per_call,
  )


def denoiser(config, model, params):
  """`denoise` as guidance.sds.gradient wants it; arguments as of `encode`."""
  size = 2 * config.noise_samples * config.views_per_call
  return lambda *batch: chunks.map_groups(
      lambda batch: model.denoise(params, *batch), batch, size
  )
