"""What a command line names, opened; what is wrong with it, told in a line."""

import contextlib
import pathlib
from typing import Iterator, Sequence

from dreamjax import options as options_lib


@contextlib.contextmanager
def refusals() -> Iterator[None]:
  """While input is read, a refusal becomes a line instead of a traceback."""
  try:
    yield
  except (ValueError, OSError) as error:
    raise options_lib.InputError(error) from error


@contextlib.contextmanager
def shortage(folder: pathlib.Path) -> Iterator[None]:
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


def weights_name(options: options_lib.Options, texts: Sequence[str]) -> str:
  """Where the weights are; a prompt that the toybox cannot know is refused."""
  if options.flags.weights != "toybox":
    return options.flags.weights
  from dreamjax import toybox

  for text in texts:
    toybox.check_words(text)
  return str(toybox.WEIGHTS)


def load(options: options_lib.Options, name: str | pathlib.Path, dtype: str):
  """The weights with all that the flags add to them."""
  from dreamjax.diffusion import weights

  return weights.load(
      name,
      dtype,
      options.flags.prediction,
      options.loras(),
      options.flags.embedding,
  )


def additions(options: options_lib.Options) -> tuple[str, ...]:
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
