"""What each verb of the command line does; each returns the exit code.

Heavy modules are imported where they are used, so that help and mistakes in
flags are answered at once.
"""

import contextlib
import importlib.metadata
import importlib.util
import math
import pathlib
import platform
import sys
from typing import Callable

import dreamjax
from dreamjax import config_io
from dreamjax import inputs
from dreamjax import options as options_lib
from dreamjax import signals as signals_lib

OK, BAD_INPUT, DIVERGED, EMPTY, TOO_LARGE = 0, 2, 3, 4, 5


def fit(options: options_lib.Options) -> int:
  """Makes the objects of the prompts, or goes on making them."""
  with contextlib.ExitStack() as stack:
    with inputs.refusals():
      config, folder = options.config(), options.workdir()
      texts = options.prompts()
      from dreamjax import parallel, train, workdir
      from dreamjax.diffusion import weights

      where = parallel.layout(
          len(texts), config.train.views, options.flags.devices
      )
      places = weights.locate(inputs.weights_name(options, texts))
      run = workdir.Run(
          config,
          texts,
          options.flags.seed,
          workdir.fingerprint(*places),
          inputs.additions(options),
      )
      store = stack.enter_context(
          workdir.open_for(run, folder, options.flags.restore)
      )
    with signals_lib.Signals() as signals:
      try:
        with inputs.shortage(folder):
          with inputs.refusals():
            prior = train.prepare(
                run, inputs.load(options, places[0], config.guidance.dtype)
            )
          state = train.fit(
              run, prior, store, where, folder, lambda: signals.received > 0
          )
      except FloatingPointError as error:
        print(f"dreamjax: {error}", file=sys.stderr)
        return DIVERGED
      except MemoryError as error:
        print(f"dreamjax: {error}", file=sys.stderr)
        return TOO_LARGE
    if signals.received:
      return 128 + signals.received
    return _write(run, state, folder, _pictures, _meshes)


def _anew(options: options_lib.Options, writer: Callable[..., list]) -> int:
  """Writes some of a run's files anew, by another config.output if wanted."""
  with contextlib.ExitStack() as stack:
    with inputs.refusals():
      folder = options.workdir()
      from dreamjax import workdir

      run = workdir.read_run(folder)
      for name, _ in options.settings:
        if not name.startswith("output."):
          raise ValueError(f"--config.{name}: only config.output can change.")
      config = config_io.override(run.config, options.settings)
      store = stack.enter_context(workdir.open_for(run, folder))
      from dreamjax import train

      state = train.restore(run, store)
    return _write(run._replace(config=config), state, folder, writer)


def render(options: options_lib.Options) -> int:
  return _anew(options, _pictures)


def export(options: options_lib.Options) -> int:
  return _anew(options, _meshes)


def evaluate(options: options_lib.Options) -> int:
  return _anew(options, _judgement)


def _write(run, state, folder: pathlib.Path, *writers) -> int:
  """Writes the outputs of each prompt, with a line per file."""
  from dreamjax import scene, workdir
  from dreamjax.outputs import mesh

  code = OK
  folders = workdir.prompt_folders(folder, run.prompts)
  for i, (place, text) in enumerate(zip(folders, run.prompts)):
    place.mkdir(exist_ok=True)
    made = scene.make(run.config, state, i)
    try:
      for writer in writers:
        for path, what in writer(made, run.config, place, text):
          print(f"{path}: {what}", flush=True)
    except mesh.EmptyScene as error:
      print(f"dreamjax: {text}: {error}", file=sys.stderr)
      code = EMPTY
  return code


def _pictures(scene, config, folder, text):
  from dreamjax.outputs import report

  return report.write_pictures(scene.render_views, config.output, folder, text)


def _meshes(scene, config, folder, text):
  from dreamjax.outputs import report

  bound = config.render.bound
  return report.write_meshes(scene.query, config.output, bound, folder, text)


def _judgement(scene, config, folder, text):
  from dreamjax.evaluation import truth

  del config  # Only what the scene looks like counts.
  with inputs.refusals():
    return truth.write(folder, scene.render_views, text)


def sample(options: options_lib.Options) -> int:
  """Draws one image per prompt."""
  with inputs.refusals():
    config, texts = options.config(), options.prompts()
    from dreamjax.diffusion import sample as sample_lib
    from dreamjax.outputs import images

    name = inputs.weights_name(options, texts)
    pipeline = inputs.load(options, name, config.guidance.dtype)
  negative = config.prompt.negative
  drawn = sample_lib.draw(
      pipeline, texts, negative=negative, seed=options.flags.seed
  )
  columns = math.isqrt(len(texts) - 1) + 1
  picture = images.image_grid(drawn, columns, texts)
  with inputs.refusals():
    images.save_image(options.flags.out, picture)
  print(f"{options.flags.out}: what the weights draw")
  return OK


def plan(options: options_lib.Options) -> int:
  """Says what memory a step takes, and how it could take less."""
  with inputs.refusals():
    config = options.config()
    from dreamjax import parallel, plan as plan_lib
    from dreamjax.diffusion import weights

    flags = options.flags
    many = flags.prompt is not None or flags.prompts_file is not None
    where = parallel.layout(
        len(options.prompts()) if many else 1, config.train.views, flags.devices
    )
    name = inputs.weights_name(options, ())
    model, noise = weights.read_model(
        name, config.guidance.dtype, flags.prediction
    )
    fits = plan_lib.report(config, model, noise, where, flags.memory_gb)
  return OK if fits else TOO_LARGE


def profile(options: options_lib.Options) -> int:
  """Says where the time of a step goes."""
  with inputs.refusals():
    config = options.config()
    from dreamjax import profiling

    name = inputs.weights_name(options, ())
    pipeline = inputs.load(options, name, config.guidance.dtype)
    table = profiling.report(config, pipeline, options.flags.trace)
  print(table)
  return OK


def doctor(_: options_lib.Options) -> int:
  """Says what this installation can use."""
  import jax

  from dreamjax.ops import kernels

  print(f"dreamjax {dreamjax.__version__}")
  print(f"Python {platform.python_version()} on {platform.platform()}")
  for name in ("jax", "jaxlib", "flax", "orbax-checkpoint"):
    print(f"{name} {importlib.metadata.version(name)}")
  for device in jax.local_devices():
    print(f"device {device.id}: {device.device_kind}")
  print(kernels.status())
  print(f"compiled programs: {jax.config.jax_compilation_cache_dir}")
  has_encoder = importlib.util.find_spec("imageio_ffmpeg") is not None
  print(f"turntable: {'mp4' if has_encoder else 'webp, for want of [video]'}")
  return OK
