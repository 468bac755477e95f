"""Views go through the prior in groups, and it makes no difference."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import prior
from dreamjax import render
from dreamjax.diffusion import weights


class Recorder:
  """Stands for diffusion.model.Model; knows how many images came at a time."""

  image_size = 8

  def __init__(self):
    self.seen = []

  def encode_image(self, params, image):
    self.seen.append(len(image))
    return jnp.sin(params * image)

  def decode_image(self, params, latent):
    self.seen.append(len(latent))
    return jnp.cos(params * latent)

  def denoise(self, params, noisy, t, context):
    self.seen.append(len(noisy))
    return params * noisy * t.astype(jnp.float32)[:, None, None, None] + context


@pytest.mark.parametrize(
    "views_per_call, size", [(0, 6), (1, 1), (3, 3), (4, 3), (6, 6), (9, 6)]
)
def test_views_in_groups_are_views(views_per_call, size, tiny):
  config = dataclasses.replace(
      tiny[0].guidance, views_per_call=views_per_call
  )
  image = jax.random.uniform(jax.random.key(0), (6, 4, 4, 3))
  params = jnp.float32(3.0)

  def loss(model, config):
    through = lambda image: prior.decode(
        config, model, params, prior.encode(config, model, params, image)
    )
    return lambda image: jnp.sum(through(image))

  model = Recorder()
  got = jax.value_and_grad(loss(model, config))(image)
  assert set(model.seen) == {size}
  want = jax.value_and_grad(loss(Recorder(), tiny[0].guidance))(image)
  # Sums of a few hundred float32 in another order.
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      got, want,
  )

  model = Recorder()
  noisy = jax.random.normal(jax.random.key(1), (24, 2, 2, 4))
  t = jnp.arange(24)
  denoise = prior.denoiser(config, model, params)
  np.testing.assert_allclose(
      denoise(noisy, t, noisy),
      Recorder().denoise(params, noisy, t, noisy),
      rtol=1e-6,
  )
  assert set(model.seen) == {4 * size}


def test_views_in_groups_take_less_memory(tiny):
  config, model = tiny
  config = dataclasses.replace(config.guidance, image_size=64)
  params = weights.shapes(model)
  image = jax.ShapeDtypeStruct((8, 64, 64, 3), jnp.float32)

  def memory(views_per_call):
    part = dataclasses.replace(config, views_per_call=views_per_call)
    loss = lambda image, params: prior.encode(part, model, params, image).sum()
    compiled = jax.jit(jax.grad(loss)).lower(image, params).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  # An eighth, but for what does not grow with the views.
  assert memory(1) < 0.3 * memory(0)


def test_normals_and_opacity_in_the_shape_of_latents(tiny):
  config, model = tiny[0].guidance, tiny[1]
  opacity = np.zeros((2, 16, 16), np.float32)
  opacity[1] = 1.0
  normal = np.zeros((2, 16, 16, 3), np.float32)
  normal[1] = (0.0, 0.6, -0.8)
  images = render.Rendering(None, opacity, None, normal)
  latent = prior.normals_as_latents(config, model, images)
  assert latent.shape == (2, *model.latent_shape(16, 16))
  for view, want in zip(latent, ((0, 0, 0, -1), (0.0, 0.6, -0.8, 1.0))):
    np.testing.assert_allclose(
        view, np.broadcast_to(want, view.shape), atol=1e-6
    )


def test_normals_stand_for_four_channels_only(tiny):
  config = dataclasses.replace(tiny[0].guidance, latent_warmup=0.2)
  model = dataclasses.replace(
      tiny[1],
      vae=dataclasses.replace(tiny[1].vae, latent_channels=8),
      unet=dataclasses.replace(tiny[1].unet, in_channels=8, out_channels=8),
  )
  with pytest.raises(ValueError, match="8 channels"):
    prior.shapes(config, model)
  assert prior.shapes(config, tiny[1]) == ((16, 16, 3), (8, 8, 4))
