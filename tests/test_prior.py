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


def test_sharpening_makes_an_edge_steeper_and_leaves_plain_areas():
  edge = jnp.array([0.4, 0.4, 0.4, 0.4, 0.6, 0.6, 0.6, 0.6])
  image = jnp.broadcast_to(edge[None, None, :, None], (2, 8, 8, 3))
  # A binomial blur of the step: 11/16 of the near side, 5/16 of the other one;
  # a pixel on, 15/16 and 1/16.
  near, far = 0.2 * 5 / 16, 0.2 / 16
  change = jnp.array([0, 0, -far, -near, near, far, 0, 0])
  for strength in (0.5, 1.5):
    sharp = prior.sharpen(image, strength)
    want = jnp.broadcast_to((edge + strength * change)[:, None], sharp.shape)
    np.testing.assert_allclose(sharp, want, atol=1e-6)
    turned = prior.sharpen(image.swapaxes(1, 2), strength).swapaxes(1, 2)
    np.testing.assert_allclose(turned, want, atol=1e-6)


def test_sharpened_pictures_stay_within_range():
  image = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
  sharp = prior.sharpen(image, 5.0)
  assert float(sharp.min()) == 0.0
  assert float(sharp.max()) == 1.0


def test_what_is_decoded_is_sharpened_if_the_config_wants_it(tiny):
  latent = jax.random.uniform(jax.random.key(0), (4, 8, 8, 3))
  config = dataclasses.replace(
      tiny[0].guidance, residual="image", views_per_call=2
  )
  plain = prior.decode(config, Recorder(), jnp.float32(3.0), latent)
  np.testing.assert_array_equal(plain, jnp.cos(3.0 * latent))
  config = dataclasses.replace(config, sharpen=1.5)
  got = prior.decode(config, Recorder(), jnp.float32(3.0), latent)
  np.testing.assert_allclose(got, prior.sharpen(plain, 1.5), atol=1e-6)
