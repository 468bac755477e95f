"""The command line: flags -> config -> weights -> fit -> files.

Heavy modules are imported where they are used, so that help and mistakes in
flags are answered at once.
"""

import contextlib
import importlib.metadata
import importlib.util
import math
import os
import pathlib
import platform
import signal
import sys
from typing import Callable, Iterator, Sequence

import dreamjax
from dreamjax import allocator
from dreamjax import config_io
from dreamjax import options as options_lib

OK, BAD_INPUT, DIVERGED, EMPTY, TOO_LARGE = 0, 2, 3, 4, 5


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit code."""
  argv = list(sys.argv if argv is None else argv)
  for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(errors="backslashreplace")  # LANG=C has no umlauts.
  try:
    if any(word in ("-h", "-help", "--help") for word in argv[1:]):
      print(options_lib.help_text())
      return OK
    options = options_lib.parse(argv, list(_VERBS))
    allocator.keep_freed_memory(large=False)
    return _VERBS[options.verb](options)
  except options_lib.InputError as error:
    print(f"dreamjax: {error}", file=sys.stderr)
    return BAD_INPUT
  except KeyboardInterrupt:
    return 128 + signal.SIGINT


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
  """While input is read, a refusal becomes a line instead of a traceback."""
  try:
    yield
  except (ValueError, OSError) as error:
    raise options_lib.InputError(error) from error


@contextlib.contextmanager
def _shortage(folder: pathlib.Path) -> Iterator[None]:
  """A device that runs out of memory becomes a `MemoryError` with advice."""
  import jax

  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise MemoryError(
        "the device has too little memory for this run, whose checkpoints are"
        " as they were. `dreamjax plan --memory_gb=...` with the same flags"
        " finds settings that need less; with them, a new --workdir and"
        f" --restore={folder} goes on."
    ) from error


class Signals:
  """Turns the first SIGINT or SIGTERM into a wish; a second one ends at once.

  Attributes:
    received: number of the first signal, or 0.
  """

  def __init__(self):
    self.received = 0
    self._previous = {}

  def __enter__(self) -> "Signals":
    for number in (signal.SIGINT, signal.SIGTERM):
      self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _handle(self, number, _) -> None:
    if self.received:
      os._exit(128 + number)  # Python's own way out would wait for XLA.
    self.received = number


def _weights(options: options_lib.Options, texts: Sequence[str]) -> str:
  """Where the weights are; a prompt that the toybox cannot know is refused."""
  if options.flags.weights != "toybox":
    return options.flags.weights
  from dreamjax import toybox

  for text in texts:
    toybox.check_words(text)
  return str(toybox.WEIGHTS)


def _load(options: options_lib.Options, name: str | pathlib.Path, dtype: str):
  """The weights with all that the flags add to them."""
  from dreamjax.diffusion import weights

  return weights.load(
      name,
      dtype,
      options.flags.prediction,
      options.loras(),
      options.flags.embedding,
  )


def _additions(options: options_lib.Options) -> tuple[str, ...]:
  """What the flags add to the weights, as the run's record names it."""
  from dreamjax import checkpoint

  digest = lambda path: checkpoint.sha256(pathlib.Path(path))
  lines = [
      f"lora at {scale:g}: {digest(path)} ({pathlib.Path(path).name})"
      for path, scale in options.loras()
  ]
  lines += [
      f"embedding: {digest(path)} ({pathlib.Path(path).name})"
      for path in options.flags.embedding
  ]
  if options.flags.prediction:
    lines.append(f"prediction: {options.flags.prediction}")
  return tuple(lines)


def _fit(options: options_lib.Options) -> int:
  """Makes the objects of the prompts, or goes on making them."""
  with contextlib.ExitStack() as stack:
    with _refusals():
      config, folder = options.config(), options.workdir()
      texts = options.prompts()
      from dreamjax import parallel, train, workdir
      from dreamjax.diffusion import weights

      where = parallel.layout(
          len(texts), config.train.views, options.flags.devices
      )
      places = weights.locate(_weights(options, texts))
      run = workdir.Run(
          config,
          texts,
          options.flags.seed,
          workdir.fingerprint(*places),
          _additions(options),
      )
      store = stack.enter_context(
          workdir.open_for(run, folder, options.flags.restore)
      )
    with Signals() as signals:
      try:
        with _shortage(folder):
          with _refusals():
            prior = train.prepare(
                run, _load(options, places[0], config.guidance.dtype)
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
    with _refusals():
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


def _render(options: options_lib.Options) -> int:
  return _anew(options, _pictures)


def _export(options: options_lib.Options) -> int:
  return _anew(options, _meshes)


def _evaluate(options: options_lib.Options) -> int:
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
  with _refusals():
    return truth.write(folder, scene.render_views, text)


def _sample(options: options_lib.Options) -> int:
  """Draws one image per prompt."""
  with _refusals():
    config, texts = options.config(), options.prompts()
    from dreamjax.diffusion import sample
    from dreamjax.outputs import images

    pipeline = _load(options, _weights(options, texts), config.guidance.dtype)
  negative = config.prompt.negative
  drawn = sample.draw(
      pipeline, texts, negative=negative, seed=options.flags.seed
  )
  columns = math.isqrt(len(texts) - 1) + 1
  picture = images.image_grid(drawn, columns, texts)
  with _refusals():
    images.save_image(options.flags.out, picture)
  print(f"{options.flags.out}: what the weights draw")
  return OK


def _plan(options: options_lib.Options) -> int:
  """Says what memory a step takes, and how it could take less."""
  with _refusals():
    config = options.config()
    from dreamjax import parallel, plan
    from dreamjax.diffusion import weights

    flags = options.flags
    many = flags.prompt is not None or flags.prompts_file is not None
    where = parallel.layout(
        len(options.prompts()) if many else 1, config.train.views, flags.devices
    )
    model, noise = weights.read_model(
        _weights(options, ()), config.guidance.dtype, flags.prediction
    )
    fits = plan.report(config, model, noise, where, flags.memory_gb)
  return OK if fits else TOO_LARGE


def _profile(options: options_lib.Options) -> int:
  """Says where the time of a step goes."""
  with _refusals():
    config = options.config()
    from dreamjax import profiling

    pipeline = _load(options, _weights(options, ()), config.guidance.dtype)
    table = profiling.report(config, pipeline, options.flags.trace)
  print(table)
  return OK


def _doctor(_: options_lib.Options) -> int:
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
  has_encoder = importlib.util.find_spec("imageio_ffmpeg") is not None
  print(f"turntable: {'mp4' if has_encoder else 'webp, for want of [video]'}")
  return OK


_VERBS = {
    "fit": _fit,
    "sample": _sample,
    "render": _render,
    "export": _export,
    "evaluate": _evaluate,
    "plan": _plan,
    "profile": _profile,
    "doctor": _doctor,
}
