"""What the compiled step computes, and what it must not."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import parallel
from dreamjax import step
from dreamjax.diffusion import keys
from dreamjax.diffusion import schedule
from dreamjax.diffusion import weights

# Products as XLA writes them: the first axis, the window of a convolution, and
# where in the program they come from, which XLA may forget.
_PRODUCT = re.compile(
    r"= \S+?\[(?P<batch>\d*)\S* (?P<kind>convolution|dot)\([^)]*\)"
    r"(?:, window={(?:size=(?P<window>\w+))?)?"
    r'(?:.*op_name="(?P<place>[^"]*)/\w+")?'
)


@pytest.fixture(scope="module")
def products(tiny):
  """Matches of `_PRODUCT` in the compiled step."""
  config, model = tiny
  where = parallel.layout(1, config.train.views, 1)
  lowered = parallel.lower(
      step.make_steps(config, model, where, False),
      where,
      *step.shapes(
          config,
          model,
          weights.shapes(model),
          schedule.make(schedule.ScheduleConfig()),
      ),
  )
  lines = lowered.compile().as_text().splitlines()
  return [m for m in map(_PRODUCT.search, lines) if m]


def count(products, place):
  """How many products have a place that a pattern finds."""
  return sum(bool(re.search(place, m["place"] or "")) for m in products)


def kernels(tiny, name):
  """{path: shape} of what a step multiplies with in a network."""
  model = tiny[1]
  params = model.distillation_params(weights.shapes(model))[name]
  found = {
      re.escape("/".join(path[:-1])): leaf.shape
      for path, leaf in keys.flatten(params).items()
      if path[-1] == "kernel"
  }
  assert len(found) > 10
  return found


def squares(tiny, name):
  """The number of 3x3 convolutions of a network."""
  return sum(shape[:2] == (3, 3) for shape in kernels(tiny, name).values())


def test_every_view_is_encoded_once(tiny, products):
  for path in kernels(tiny, "vae"):
    assert count(products, rf"/jvp\(AutoencoderKL.*/{path}$") == 1, path


def test_the_priors_weights_have_no_gradient(tiny, products):
  # A product for the image's gradient; another would be for the weight's.
  for path in kernels(tiny, "vae"):
    place = rf"/transpose\(jvp\(AutoencoderKL.*/{path}$"
    assert count(products, place) == 1, path
  # A convolution for a weight's gradient has a window as large as the image.
  windows = [m["window"] for m in products if m["kind"] == "convolution"]
  assert set(windows) <= {"3x3", "1x1", None}
  want = 2 * squares(tiny, "vae") + squares(tiny, "unet")
  assert windows.count("3x3") == want


def test_all_views_noises_and_branches_are_one_call_of_the_unet(
    tiny, products
):
  config = tiny[0]
  for path in kernels(tiny, "unet"):
    assert count(products, rf"UNet.*/{path}$") == 1, path
  (batch,) = [
      m["batch"]
      for m in products
      if (m["place"] or "").endswith("/UNet/conv_in")
  ]
  want = 2 * config.guidance.noise_samples * config.train.views
  assert int(batch) == want


def test_the_unet_is_not_differentiated(products):
  assert count(products, "UNet") > 10
  assert not count(products, r"jvp\(UNet|jvp\(.*/UNet")


def test_nothing_is_decoded(products):
  assert not count(products, "decode|post_quant")


class Recorder:
  """Stands for diffusion.model.Model; knows how many images came at a time."""

  image_size = 8

  def __init__(self):
    self.seen = []

  def encode_image(self, params, image):
    self.seen.append(len(image))
    return jnp.sin(params * image)

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
    return lambda image: jnp.sum(
        jnp.cos(step.encode(config, model, params, image))
    )

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
  denoise = step.denoiser(config, model, params)
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
    loss = lambda image, params: step.encode(part, model, params, image).sum()
    compiled = jax.jit(jax.grad(loss)).lower(image, params).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  # An eighth, but for what does not grow with the views.
  assert memory(1) < 0.3 * memory(0)
