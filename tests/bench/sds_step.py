"""A step of score distillation against the same step in eager PyTorch.

Command:  python tests/bench/sds_step.py [--full] [--dtype=bfloat16]
Result:   one JSON line per number of views; with --table rows of Markdown.
Needs:    pip install '.[parity]'; on a GPU, which both share, also
          XLA_PYTHON_CLIENT_PREALLOCATE=false

From rendered images to the gradient that they get: resized, encoded, noised,
denoised with and without text, and pulled back through the encoder. PyTorch
makes Stable Diffusion 2.x-base with random weights, a reduced one or, with
--full, the real size; dreamjax reads them, so both must give the same gradient.
On the same device they run in turn. `floor` is the time that the device's peak
arithmetic and memory would take for what XLA counts.
"""

import functools
import tempfile

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import measure
import numpy as np
import peers
import torch

from dreamjax import compiler
from dreamjax import config as config_lib
from dreamjax import prior
from dreamjax import prompts
from dreamjax import roofline
from dreamjax.diffusion import text
from dreamjax.diffusion import weights
from dreamjax.guidance import sds
from dreamjax.toybox import prior as toybox_prior

_FULL = flags.DEFINE_bool("full", False, "The size of Stable Diffusion 2.1.")
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Of the networks."
)
_VIEWS = flags.DEFINE_list("views", ["1", "4"], "Views of a step.")

_RENDERED = 64
_TIME = 500
_GUIDANCE = config_lib.GuidanceConfig(scale=config_lib.constant(100.0))


def make_models(folder):
  """The PyTorch pipeline, and ours of the same weights by way of a folder."""
  shape = peers.FULL_2_BASE if _FULL.value else peers.REDUCED_2_BASE
  _, autoencoder, unet, scheduler = shape
  # The text tower has no part in a step.
  tower = peers.SMALL_TEXT | {"hidden_size": unet["cross_attention_dim"]}
  vocabulary, merges = toybox_prior.vocabulary()
  tower |= {"vocab_size": len(vocabulary)}
  text.write(f"{folder}/tokenizer", vocabulary, merges, 8)
  theirs = peers.make_pipeline(
      (tower, autoencoder, unet, scheduler), f"{folder}/tokenizer"
  )
  theirs.save_pretrained(f"{folder}/weights")
  theirs.to(device(), getattr(torch, _DTYPE.value))
  for network in (theirs.vae, theirs.unet):
    network.requires_grad_(False)
  return theirs, weights.load(f"{folder}/weights", _DTYPE.value)


def device():
  """PyTorch's name of the device that JAX computes on."""
  if jax.default_backend() == "cpu":
    return "cpu"
  if not torch.cuda.is_available():
    raise app.UsageError(
        "JAX computes on a GPU that PyTorch cannot use; set JAX_PLATFORMS=cpu."
    )
  return "cuda"


def make_arrays(pipeline, views):
  """Images, noise, and texts [V + 1, N, E], the last for no text."""
  model = pipeline.model
  rng = np.random.default_rng(0)
  normal = lambda *shape: rng.standard_normal(shape, np.float32)
  image = rng.uniform(size=(views, _RENDERED, _RENDERED, 3))
  tower = model.text_encoder
  return (
      image.astype(np.float32),
      normal(views, *model.latent_shape(model.image_size, model.image_size)),
      normal(views + 1, tower.max_position_embeddings, tower.hidden_size),
  )


def make_step(pipeline, arrays):
  """(() -> gradient f32[V, H, W, 3], the milliseconds below it)."""
  model = pipeline.model
  params = prior.needed(_GUIDANCE, model, pipeline.params)

  def step(params, schedule, image, noise, texts):
    known = (_GUIDANCE, model, params)
    latent, pull = jax.vjp(
        lambda image: prior.encode(
            *known, prior.resize(_GUIDANCE, model, image)
        ),
        image,
    )
    gradient, *_ = sds.gradient(
        jnp.full((1, len(image)), _TIME, jnp.int32),
        noise[None],
        jnp.float32(_GUIDANCE.scale.end),
        latent,
        prompts.Texts(
            context=texts[:-1],
            empty=texts[-1],
            opposed=jnp.zeros((0, *texts[:-1].shape)),
            weight=jnp.zeros((0, len(texts) - 1)),
        ),
        prior.denoiser(*known),
        schedule,
        _GUIDANCE,
    )
    return pull(gradient)[0]

  inputs = (params, pipeline.schedule, *map(jnp.asarray, arrays))
  compiled = jax.jit(step).lower(*inputs).compile()
  cost = compiled.cost_analysis()
  floor = roofline.floor(
      cost["flops"], cost["bytes accessed"], roofline.measure(model.dtype)
  )
  return functools.partial(compiled, *inputs), floor


def make_pytorch_step(pipe, size, arrays):
  """() -> gradient f32[V, H, W, 3], as a reader of the paper would write it."""
  dtype = pipe.unet.dtype
  images, noise = (peers.to_torch(array).to(device()) for array in arrays[:2])
  texts = torch.from_numpy(arrays[2]).to(device(), dtype)
  context = torch.cat([texts[:-1], texts[-1:].expand(len(images), -1, -1)])
  kept = pipe.scheduler.alphas_cumprod[_TIME].to(device())

  def step():
    image = images.clone().requires_grad_()
    large = torch.nn.functional.interpolate(image, (size, size), mode="bilinear")
    code = pipe.vae.encode((2 * large - 1).to(dtype)).latent_dist.mean
    latent = code.float() * pipe.vae.config.scaling_factor
    with torch.no_grad():
      noisy = kept.sqrt() * latent + (1 - kept).sqrt() * noise
      output = pipe.unet(torch.cat([noisy, noisy]).to(dtype), _TIME, context)
      known, unknown = output.sample.float().chunk(2)
      guided = unknown + _GUIDANCE.scale.end * (known - unknown)
      gradient = (1 - kept) * (guided - noise) / latent.numel()
    latent.backward(gradient)
    return image.grad.permute(0, 2, 3, 1).cpu().numpy()

  return step


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"{argv[1:]} is not a flag.")
  compiler.configure(keep=False)
  with tempfile.TemporaryDirectory() as folder:
    theirs, ours = make_models(folder)

  def cases():
    for views in map(int, _VIEWS.value):
      arrays = make_arrays(ours, views)
      step, floor = make_step(ours, arrays)
      other = make_pytorch_step(theirs, ours.model.image_size, arrays)
      yield measure.Case(
          f"{'full' if _FULL.value else 'reduced'}, {_DTYPE.value}",
          lambda step=step, other=other, floor=floor: (
              {"dreamjax": step, "PyTorch": other}, floor
          ),
          {"views": views},
          {"torch": torch.__version__},
      )

  measure.run(cases(), {
      "case": "case",
      "views": "views",
      "dreamjax": "value",
      "PyTorch": "PyTorch",
      "ratio": "ratio",
      "floor": "floor",
      "error": "error",
  })


if __name__ == "__main__":
  app.run(main)
