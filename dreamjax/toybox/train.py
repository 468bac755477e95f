"""Trains the prior that comes with dreamjax.

  python -m dreamjax.toybox.train --workdir=out/toybox

renders the toys, trains the autoencoder, then the UNet with its text tower,
and writes a model folder in diffusers format to WORKDIR/weights, with sheets
of samples beside it. Stopped at any time, the same command goes on. With

  --start_from=dreamjax/toybox/weights --peak_rate=4e-4 --unet_steps=16000

a finished prior is trained further; its autoencoder stays as it is.
"""

import json
import pathlib
from typing import Any

from absl import app
from absl import flags
from absl import logging
import jax
from jax import random
import numpy as np

from dreamjax import allocator
from dreamjax import checkpoint
from dreamjax import compiler
from dreamjax import config_io
from dreamjax import workdir
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import model_folder
from dreamjax.diffusion import sample
from dreamjax.diffusion import schedule as schedule_lib
from dreamjax.diffusion import tensors
from dreamjax.diffusion import text
from dreamjax.diffusion import weights
from dreamjax.outputs import files
from dreamjax.outputs import images
from dreamjax.toybox import autoencoder
from dreamjax.toybox import denoiser
from dreamjax.toybox import pictures as pictures_lib
from dreamjax.toybox import prior
from dreamjax.toybox import training
from dreamjax.toybox import words

# Parts of the config that the renderings depend on.
_SEEN = ("camera", "shading", "background")
# Each picture is encoded with as many colours and backgrounds.
_PAINTS = 4
# Of 1024 pictures those that a sheet of the autoencoder shows.
_SHOWN = slice(None, None, 67)
_SHEET_VIEWS = ("front view", "left side view", "back view", words.OVERHEAD)
_SHEET_STEPS = 25
_SHEET_SCALE = 3.0


def main(argv):
  """Runs the training that the flags ask for."""
  if len(argv) > 1 or not flags.FLAGS.workdir:
    raise app.UsageError("give --workdir=FOLDER and no other words.")
  allocator.keep_freed_memory(large=True)
  compiler.configure(keep=False)
  logging.set_verbosity(logging.WARNING)  # Orbax tells a story per save.
  folder = pathlib.Path(flags.FLAGS.workdir)
  folder.mkdir(parents=True, exist_ok=True)
  config = config_io.load("toybox")
  seed, start = flags.FLAGS.seed, flags.FLAGS.start_from
  try:
    params = initial(start, seed)
    claim(folder, {
        "seed": seed,
        "pictures": flags.FLAGS.pictures,
        "config": _seen(config),
    } | (
        {"start_from": workdir.fingerprint(*weights.locate(start))}
        if start
        else {"vae_steps": flags.FLAGS.vae_steps}
    ))
  except (checkpoint.Refused, tensors.WeightsError) as error:
    raise app.UsageError(str(error)) from error
  tokenizer = _tokenizer(folder)
  schedule = schedule_lib.make(prior.SCHEDULE)
  pictures = _pictures(folder, config, seed)
  if not start:
    params["vae"] = _train_vae(
        folder, config, seed, pictures, params["vae"]
    )
  data = _kept(
      folder / "latents.npz",
      denoiser.Data,
      lambda: _data(config, seed, pictures, params, tokenizer),
  )

  def finish(done, trained):
    """Writes the model folder and draws what it can do."""
    pipeline = model_lib.StableDiffusion(
        prior.MODEL, params | trained, schedule, tokenizer
    )
    model_folder.save(folder / "weights", pipeline, np.float16)
    _sheet(folder / f"samples_{done:06d}.png", pipeline)

  update = denoiser.make_update(
      prior.MODEL,
      schedule,
      config.prompt,
      flags.FLAGS.unet_steps,
      flags.FLAGS.peak_rate,
  )
  networks = {name: params[name] for name in ("unet", "text_encoder")}
  training.run(
      update,
      training.init(update, networks),
      data,
      store=_store(folder / "unet", seed),
      log=folder / "unet.jsonl",
      steps=flags.FLAGS.unet_steps,
      seed=seed + 1,
      save_every=flags.FLAGS.save_every,
      on_save=finish,
  )
  print(f"{folder / 'weights'}: the trained prior, a diffusers folder")


def claim(folder: pathlib.Path, record: dict[str, Any]) -> None:
  """Notes what a folder is trained for, so that nothing else goes on in it.

  The steps of the UNet are not part of it: a training may be prolonged.

  Args:
    folder: of the training.
    record: JSON tree.
  Raises:
    checkpoint.Refused: the folder is of another training; nothing is changed.
  """
  path = folder / "training.json"
  if path.exists():
    different = config_io.differences(
        json.loads(path.read_text(encoding="utf-8")), record
    )
    if different:
      lines = [
          f"\n  {name}: {there!r} there, {here!r} now"
          for name, there, here in different
      ]
      raise checkpoint.Refused(
          f"{folder} is of another training; name a new --workdir."
          f"{''.join(lines)}"
      )
    return
  content = json.dumps(record, indent=2) + "\n"
  files.write_bytes(path, content.encode())


def initial(start: str | None, seed: int) -> dict[str, Any]:
  """Parameters to start from: random ones, or those of a finished prior.

  Args:
    start: its name, as weights.load takes it; none for random ones.
    seed: of random ones.
  Raises:
    tensors.WeightsError: the prior is unusable, or of another shape.
  """
  if not start:
    return jax.jit(prior.MODEL.init)(random.key(seed))
  pipeline = weights.load(start)
  if pipeline.model != prior.MODEL:
    raise tensors.WeightsError(
        f"{start}: the networks are not of the toybox's shape; --start_from"
        " wants a folder that this program wrote."
    )
  return pipeline.params


def _seen(config) -> dict[str, Any]:
  """What the renderings depend on of a config, as a JSON tree."""
  tree = config_io.to_dict(config)
  seen = {name: tree[name] for name in _SEEN}
  prompt = tree["prompt"]
  return seen | {
      "render": {"resolution": config.render.resolution},
      "prompt": {
          name: prompt[name]
          for name in ("views", "overhead", "overhead_degrees", "blend")
      },
  }


def _tokenizer(folder):
  vocabulary, merges = prior.vocabulary()
  text.write(folder / "tokenizer", vocabulary, merges, prior.LENGTH)
  return text.Tokenizer(folder / "tokenizer", prior.LENGTH)


def _store(folder, seed):
  return checkpoint.Store(folder, {"seed": seed}, keep=2)


def _pictures(folder, config, seed) -> pictures_lib.Pictures:
  """The renderings."""
  return _kept(
      folder / "pictures.npz",
      pictures_lib.Pictures,
      lambda: pictures_lib.make(config, seed, flags.FLAGS.pictures),
  )


def _kept(path, kind, make):
  """A named tuple of arrays, made once and kept in a file."""
  if not path.exists():
    made = make()
    with files.replacing(path) as temporary:
      np.savez(temporary, **made._asdict())
  with np.load(path) as stored:
    return kind(**stored)


def _train_vae(folder, config, seed, pictures, params) -> dict[str, Any]:
  """The trained autoencoder, its latents white."""
  update = autoencoder.make_update(
      prior.MODEL.vae, config.background, flags.FLAGS.vae_steps
  )
  color = np.arange(len(pictures.kind), dtype=np.int32) % len(words.COLORS)
  every = slice(None, None, max(len(color) // 1024, 1))
  layers = pictures.layers[every]

  def look(done, params):
    image = np.asarray(jax.jit(
        lambda layers, color: pictures_lib.compose(
            layers, color, random.key(seed), config.background
        )
    )(layers[_SHOWN], color[every][_SHOWN]))
    latent = jax.jit(prior.MODEL.encode_image)({"vae": params}, image)
    again = np.asarray(
        jax.jit(prior.MODEL.decode_image)({"vae": params}, latent)
    )
    error = -10 * np.log10(np.mean((again - image) ** 2))
    print(f"autoencoder after {done} steps: {error:.1f} dB", flush=True)
    images.save_image(
        folder / f"vae_{done:06d}.png",
        images.image_grid(np.concatenate([image, again]).clip(0, 1), 8),
    )

  params = training.run(
      update,
      training.init(update, params),
      pictures.layers,
      store=_store(folder / "vae", seed),
      log=folder / "vae.jsonl",
      steps=flags.FLAGS.vae_steps,
      seed=seed,
      save_every=min(flags.FLAGS.save_every, 1000),
      on_save=look,
  )
  latent = autoencoder.encode(
      prior.MODEL, {"vae": params}, layers, config.background, color[every],
      seed,
  )
  return autoencoder.whiten(params, latent.reshape(-1, latent.shape[-1]))


def _data(config, seed, pictures, params, tokenizer) -> denoiser.Data:
  """Every picture in `_PAINTS` colours, encoded."""
  count = len(pictures.kind)
  parts, colors = [], []
  generator = np.random.default_rng(seed)
  for paint in range(_PAINTS):
    color = generator.integers(0, len(words.COLORS), count).astype(np.int32)
    print(f"encoding {count} pictures, {paint + 1} of {_PAINTS}", flush=True)
    parts.append(autoencoder.encode(
        prior.MODEL, params, pictures.layers, config.background, color,
        seed + 1 + paint,
    ))
    colors.append(color)
  return denoiser.Data(
      latent=np.concatenate(parts),
      kind=np.tile(pictures.kind, _PAINTS),
      color=np.concatenate(colors),
      azimuth=np.tile(pictures.azimuth, _PAINTS),
      elevation=np.tile(pictures.elevation, _PAINTS),
      token=tokenizer(pictures_lib.captions()),
  )


def _sheet(path, pipeline):
  """Every kind from four sides, in a colour of its own."""
  colors = list(words.COLORS)
  texts = [
      words.caption(kind, colors[index % len(colors)], view)
      for index, kind in enumerate(words.KINDS)
      for view in _SHEET_VIEWS
  ]
  drawn = sample.draw(
      pipeline, texts, steps=_SHEET_STEPS, scale=_SHEET_SCALE
  )
  columns = 4 * len(_SHEET_VIEWS)
  images.save_image(path, images.image_grid(drawn, columns, cell_size=64))


def define_flags() -> None:
  """Defines the flags of this program; they are global, hence not at import."""
  flags.DEFINE_string("workdir", None, "Folder of the training.")
  flags.DEFINE_integer("seed", 0, "Seed of all random numbers.")
  flags.DEFINE_integer(
      "pictures", 1536, "Renderings of each kind of toy.", lower_bound=16
  )
  flags.DEFINE_integer(
      "vae_steps", 8500, "Steps of the autoencoder.", lower_bound=1
  )
  flags.DEFINE_integer(
      "unet_steps",
      56_000,
      "Steps of the UNet and text tower.",
      lower_bound=1,
  )
  flags.DEFINE_string(
      "start_from", None, "Folder of a prior to train further."
  )
  flags.DEFINE_float(
      "peak_rate",
      denoiser.PEAK_RATE,
      "Largest learning rate of the UNet and text tower.",
      lower_bound=0.0,
  )
  flags.DEFINE_integer(
      "save_every", 1000, "Steps between two checkpoints.", lower_bound=1
  )


if __name__ == "__main__":
  define_flags()
  app.run(main)
