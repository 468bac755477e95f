"""The model as pure functions."""

import dataclasses

import jax
from jax import random
from jax.extend import core
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax.diffusion import unet
from dreamjax.diffusion import weights


def image(seed=0):
  return random.uniform(random.key(seed), (2, 16, 16, 3))


def inputs():
  keys = random.split(random.key(0))
  noisy = random.normal(keys[0], (2, 8, 8, 4))
  context = random.normal(keys[1], (2, 8, 32))
  return noisy, jnp.array([10, 900]), context


def relative(a, b):
  return np.abs(a - b).max() / np.abs(b).max()


def test_shapes_and_types_are_as_promised(pipeline):
  model, params, _, tokenizer = pipeline
  assert model.image_size == 16
  assert model.latent_shape(16, 32) == (8, 16, 4)
  embedding = jax.eval_shape(
      model.encode_text, params, tokenizer(["a mug", ""])
  )
  assert (embedding.shape, embedding.dtype) == ((2, 8, 32), jnp.float32)
  latent = jax.eval_shape(model.encode_image, params, image())
  assert (latent.shape, latent.dtype) == ((2, 8, 8, 4), jnp.float32)
  decoded = jax.eval_shape(model.decode_image, params, latent)
  assert (decoded.shape, decoded.dtype) == ((2, 16, 16, 3), jnp.float32)
  output = jax.eval_shape(model.denoise, params, *inputs())
  assert (output.shape, output.dtype) == ((2, 8, 8, 4), jnp.float32)


@pytest.mark.parametrize("with_decoder", [False, True])
def test_distillation_needs_no_text_tower_and_rarely_the_decoder(
    pipeline, with_decoder
):
  model = pipeline.model
  params = model.distillation_params(pipeline.params, with_decoder)
  assert params.keys() == {"vae", "unet"}
  functions = [(model.encode_image, (image(),)), (model.denoise, inputs())]
  if with_decoder:
    functions.append((model.decode_image, (jnp.zeros((2, 8, 8, 4)),)))
  else:
    assert params["vae"].keys() == {"encoder", "quant_conv"}
  for function, arguments in functions:
    whole = jax.eval_shape(function, pipeline.params, *arguments)
    assert jax.eval_shape(function, params, *arguments) == whole


def test_the_model_is_static_and_its_arrays_are_arguments(pipeline):
  encode = jax.jit(
      lambda model, params, token: model.encode_text(params, token),
      static_argnums=0,
  )
  token = pipeline.tokenizer(["a red mug"])
  first = encode(pipeline.model, pipeline.params, token)
  encode(dataclasses.replace(pipeline.model), pipeline.params, token)
  assert encode._cache_size() == 1
  assert np.isfinite(first).all()


def test_the_encoder_has_the_gradient_of_its_image(pipeline):
  model, params, _, _ = pipeline
  weight = random.normal(random.key(1), (2, 8, 8, 4))
  loss = jax.jit(lambda x: jnp.sum(weight * model.encode_image(params, x)))
  direction = random.normal(random.key(2), image().shape)
  step = 3e-3  # Smaller ones lose digits, larger ones see curvature.
  difference = (
      loss(image() + step * direction) - loss(image() - step * direction)
  ) / (2 * step)
  slope = jnp.sum(jax.jit(jax.grad(loss))(image()) * direction)
  np.testing.assert_allclose(slope, difference, rtol=2e-3)


def test_an_image_of_zeros_and_ones_fills_the_encoders_range(
    pipeline, monkeypatch
):
  seen = []
  monkeypatch.setattr(
      "dreamjax.diffusion.vae.AutoencoderKL.encode",
      lambda self, image: (seen.append(image), (image, image))[1],
  )
  pipeline.model.encode_image(pipeline.params, jnp.array([[[[0.0, 1.0]]]]))
  np.testing.assert_array_equal(seen[0].ravel(), [-1.0, 1.0])


def test_the_prediction_depends_on_time_and_text(pipeline):
  noisy, t, context = inputs()
  denoise = jax.jit(pipeline.model.denoise)
  base = denoise(pipeline.params, noisy, t, context)
  assert relative(denoise(pipeline.params, noisy, t + 50, context), base) > 1e-3
  assert relative(denoise(pipeline.params, noisy, t, -context), base) > 1e-3


def test_bfloat16_stays_near_float32(pipeline):
  # bfloat16 keeps 8 bits: one rounding is 0.4 %, and a few dozen add up.
  half = dataclasses.replace(pipeline.model, dtype="bfloat16")
  whole = pipeline.model
  params = pipeline.params
  for name, arguments in (
      ("encode_text", (pipeline.tokenizer(["a red mug"]),)),
      ("encode_image", (image(),)),
      ("denoise", inputs()),
  ):
    want = jax.jit(getattr(whole, name))(params, *arguments)
    got = jax.jit(getattr(half, name))(params, *arguments)
    assert got.dtype == jnp.float32
    assert relative(got, want) < 0.04, name


def equations(jaxpr):
  """All equations of a jaxpr and of those in it."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.tree.leaves(
        list(equation.params.values()),
        is_leaf=lambda x: isinstance(x, (core.Jaxpr, core.ClosedJaxpr)),
    ):
      if isinstance(inner, core.ClosedJaxpr):
        inner = inner.jaxpr
      if isinstance(inner, core.Jaxpr):
        yield from equations(inner)


def test_sums_and_the_time_are_float32_whatever_the_arithmetic_is(pipeline):
  half = dataclasses.replace(pipeline.model, dtype="bfloat16")
  params = weights.shapes(half)
  for function, arguments in (
      (half.encode_image, (image(),)), (half.denoise, inputs())
  ):
    found = list(equations(jax.make_jaxpr(function)(params, *arguments).jaxpr))
    # Norms' statistics, softmax, and the embedding of time.
    sensitive = {
        "reduce_sum", "reduce_max", "rsqrt", "exp", "exp2", "sin", "cos"
    }
    sums = [e for e in found if e.primitive.name in sensitive]
    assert len(sums) > 10
    for equation in sums:
      assert equation.invars[0].aval.dtype == jnp.float32, equation
    products = {"dot_general", "conv_general_dilated"}
    for equation in found:
      if equation.primitive.name in products:
        place = str(equation.source_info.name_stack)
        is_time = "time_embedding" in place
        # The product of probabilities and values rounds the former.
        want = jnp.float32 if is_time else jnp.bfloat16
        assert equation.invars[0].aval.dtype == want, place


def test_bfloat16_errors_are_roundings(pipeline):
  half = dataclasses.replace(pipeline.model, dtype="bfloat16")
  weight = random.normal(random.key(1), (2, 8, 8, 4))

  def results(model):
    encode = lambda x: model.encode_image(pipeline.params, x)
    latent, pull = jax.vjp(jax.jit(encode), image())
    prediction = jax.jit(model.denoise)(pipeline.params, *inputs())
    # JAX's derivative of attention multiplies float32 with bfloat16.
    with jax.numpy_dtype_promotion("standard"):
      return latent, pull(weight)[0], prediction

  for got, want in zip(results(half), results(pipeline.model)):
    error = jnp.sqrt(jnp.mean((got - want) ** 2) / jnp.mean(want**2))
    # A rounding to 8 bits costs up to 2^-9, about 0.15 % in the root mean
    # square. A layer rounds input, weight and result, and some 30 layers
    # follow each other: sqrt(90) 0.15 % = 1.4 % if all are independent.
    # Measured are 1.3 to 1.5 %.
    assert 1e-4 < error < 0.025


def test_time_is_embedded_as_in_the_transformer():
  config = unet.UNetConfig(block_out_channels=(8, 8, 8, 8), norm_num_groups=1)
  embedding = unet.embed_time(jnp.array([7]), config)[0]
  rate = 10_000.0 ** (-np.arange(4) / 4)
  np.testing.assert_allclose(
      embedding,
      np.concatenate([np.cos(7 * rate), np.sin(7 * rate)]),
      atol=1e-6,
  )


@pytest.mark.parametrize("size", [15, 0, 18])
def test_an_image_of_a_wrong_size_is_refused(size, pipeline):
  with pytest.raises(ValueError, match="multiples of 4"):
    pipeline.model.latent_shape(size, 16)


def test_the_networks_refuse_wrong_sizes_themselves(pipeline):
  model, params = pipeline.model, pipeline.params
  with pytest.raises(ValueError, match="image is 15x16.*multiples of 2"):
    model.encode_image(params, jnp.zeros((1, 15, 16, 3)))
  with pytest.raises(ValueError, match="latent is 7x8.*multiples of 2"):
    noisy, t, context = inputs()
    model.denoise(params, noisy[:, :7], t, context)


def test_an_unknown_type_is_refused(pipeline):
  with pytest.raises(ValueError, match="float16, want float32 or bfloat16"):
    dataclasses.replace(pipeline.model, dtype="float16")
