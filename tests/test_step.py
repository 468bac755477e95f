"""What the compiled step computes, and what it must not."""

import dataclasses
import re
from typing import Any, NamedTuple

import pytest

from dreamjax import parallel
from dreamjax import prior
from dreamjax import step
from dreamjax import views
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


class Program(NamedTuple):
  """A compiled step.

  Attributes:
    config: config.Config.
    model: diffusion.model.Model.
    products: matches of `_PRODUCT` in it.
    depths: in how many loops each of them stands.
  """

  config: Any
  model: Any
  products: list[re.Match]
  depths: list[int]

  def kernels(self, name):
    """Paths and shapes of what the step multiplies with in a network."""
    params = prior.needed(
        self.config.guidance, self.model, weights.shapes(self.model)
    )
    found = {
        re.escape("/".join(path[:-1])): leaf.shape
        for path, leaf in keys.flatten(params[name]).items()
        if path[-1] == "kernel"
    }
    assert len(found) > 10
    return found

  def count(self, place):
    """How many products have a place that a pattern finds."""
    return sum(bool(re.search(place, m["place"] or "")) for m in self.products)


def compiled(tiny, phase, **guidance):
  """Program of a phase with another config.guidance."""
  config, model = tiny
  config = dataclasses.replace(
      config, guidance=dataclasses.replace(config.guidance, **guidance)
  )
  where = parallel.layout(1, config.train.views, 1)
  lowered = parallel.lower(
      step.make_steps(config, model, where, phase),
      where,
      *step.shapes(
          config,
          model,
          weights.shapes(model),
          schedule.make(schedule.ScheduleConfig()),
      ),
  )
  products, depths = _products(lowered.compile().as_text())
  return Program(config, model, products, depths)


def _products(text):
  """(matches of `_PRODUCT`, in how many loops each stands) of a program."""
  found, callers, function = [], {}, None
  for line in text.splitlines():
    head = re.match(r"(?:ENTRY )?%?(\S+) \(.*{$", line)
    function = head[1] if head else function
    product = _PRODUCT.search(line)
    if product:
      found.append((product, function))
    for kind, name in re.findall(r"(body|calls|to_apply)=%?([^\s,]+)", line):
      callers[name] = function, kind == "body"

  def depth(function):
    caller, is_loop = callers.get(function, (None, False))
    return is_loop + depth(caller) if caller else 0

  return [product for product, _ in found], [depth(place) for _, place in found]


@pytest.fixture(
    scope="module", params=[("latent", 1, 0.0), ("image", 4, 2.0)],
    ids=["latents feel", "images feel"],
)
def program(tiny, request):
  """The step of both residuals, the second with all that costs a denoiser."""
  residual, denoise_steps, perp_neg = request.param
  return compiled(
      tiny,
      views.Phase(with_normals=False, as_latents=False),
      residual=residual,
      denoise_steps=denoise_steps,
      perp_neg=perp_neg,
  )


@pytest.mark.parametrize("residual", ["latent", "image"])
def test_normals_as_latents_need_no_autoencoder(tiny, residual):
  phase = views.Phase(with_normals=True, as_latents=True)
  program = compiled(tiny, phase, residual=residual, latent_warmup=0.5)
  assert program.count("UNet") and not program.count("AutoencoderKL")


def test_every_view_is_encoded_once(program):
  for path in program.kernels("vae"):
    if re.match("encoder|quant_conv", path):
      place = rf"/jvp\(AutoencoderKL.*/{path}$"
      assert program.count(place) == 1, path


def test_only_latents_need_the_encoders_derivative(program):
  wanted = int(program.config.guidance.residual == "latent")
  for path in program.kernels("vae"):
    # A product for the image's gradient; another would be for the weight's.
    place = rf"/transpose\(jvp\(AutoencoderKL.*/{path}$"
    assert program.count(place) == wanted, path


def test_only_images_need_the_decoder_and_none_its_derivative(program):
  is_needed = program.config.guidance.residual == "image"
  decoder = [
      path
      for path in program.kernels("vae")
      if re.match("decoder|post_quant_conv", path)
  ]
  assert bool(decoder) == is_needed
  for path in decoder:
    assert program.count(f"/AutoencoderKL.decode/{path}$") == 1, path
  assert bool(program.count("decode|post_quant")) == is_needed
  assert not program.count(r"jvp\(AutoencoderKL.decode")


def test_the_priors_weights_have_no_gradient(program):
  # A convolution for a weight's gradient has a window as large as the image.
  windows = [
      m["window"] for m in program.products if m["kind"] == "convolution"
  ]
  # Those of upsampled images are computed at the small size.
  sizes = {"3x3": False, "2x2": True}
  assert set(windows) <= {*sizes, "1x1", None}
  # The autoencoder goes forward and back, or forward through both its halves.
  twice = 1 if program.config.guidance.residual == "image" else 2
  for size, is_upsampling in sizes.items():
    squares = lambda name: sum(
        shape[:2] == (3, 3) and ("upsamplers" in path) == is_upsampling
        for path, shape in program.kernels(name).items()
    )
    assert windows.count(size) == twice * squares("vae") + squares("unet")


def test_all_views_noises_and_branches_are_one_call_of_the_unet(program):
  guidance, train = program.config.guidance, program.config.train
  for path in program.kernels("unet"):
    assert program.count(rf"UNet.*/{path}$") == 1, path
  batches = [
      int(m["batch"])
      for m in program.products
      if (m["place"] or "").endswith("/UNet/conv_in")
  ]
  branches = 4 if guidance.perp_neg else 2
  assert batches == [branches * guidance.noise_samples * train.views]


def test_keys_and_values_of_the_text_are_computed_before_the_loop(program):
  def depth(path):
    (found,) = {
        depth
        for m, depth in zip(program.products, program.depths)
        if re.search(rf"UNet.*/{path}$", m["place"] or "")
    }
    return found

  is_loop = program.config.guidance.denoise_steps > 1
  fixed = r"transformer_blocks\.0/attn2/to_[kv]"
  assert depth("conv_in") == 1 + is_loop  # One is the loop over steps.
  assert depth(fixed) == 1


def test_the_unet_is_not_differentiated(program):
  assert program.count("UNet") > 10
  assert not program.count(r"jvp\(UNet|jvp\(.*/UNet")
