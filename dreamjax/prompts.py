"""View-dependent prompts: the words around an object, embedded once.

K azimuth bins, V views, N tokens, E embedding width.
"""

import pathlib
from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamjax import config

_TURN = 2 * np.pi


class Prompt(NamedTuple):
  """Embeddings of one prompt, as the denoiser's cross-attention reads them.

  Attributes:
    views: f32[K, N, E], one per azimuth bin of the config, in its order.
    overhead: f32[N, E], seen from above.
    empty: f32[N, E], the negative prompt: the unconditional branch of
      classifier-free guidance.
  """

  views: jax.Array
  overhead: jax.Array
  empty: jax.Array


def clean(text: str) -> str:
  """The prompt with single spaces.

  Raises:
    ValueError: it is blank.
  """
  text = " ".join(text.split())
  if not text:
    raise ValueError('The prompt is empty; say what to make: "a red mug".')
  return text


def texts(text: str, settings: config.PromptConfig) -> list[str]:
  """The K view texts, then the overhead text, then the negative prompt.

  Raises:
    ValueError: the prompt is blank.
  """
  text = clean(text)
  words = [word for _, word in settings.views] + [settings.overhead]
  return [f"{text}, {word}" for word in words] + [settings.negative]


def embed(
    text: str,
    settings: config.PromptConfig,
    encode: Callable[[np.ndarray], jax.Array],
    tokenize: Callable[[list[str]], np.ndarray],
) -> Prompt:
  """The prompt's embeddings, by one call of the text encoder.

  Args:
    text: the prompt, without view words.
    settings: the view words.
    encode: token ids i32[B, N] -> f32[B, N, E].
    tokenize: B texts -> token ids i32[B, N].
  Raises:
    ValueError: the prompt is blank.
  """
  embedding = encode(tokenize(texts(text, settings)))
  return Prompt(
      views=embedding[:-2], overhead=embedding[-2], empty=embedding[-1]
  )


def nearest(
    settings: config.PromptConfig, azimuth: jax.Array, elevation: jax.Array
) -> jax.Array:
  """Which words a view gets (DreamFusion, appendix A.2).

  Args:
    settings: K azimuth bins and the overhead threshold.
    azimuth: f32[V], radians, any turn; 0 is the front.
    elevation: f32[V], radians.
  Returns:
    i32[V], the bin whose azimuth is nearest, or K for overhead.
  """
  gap = (azimuth[:, None] - _centers(settings) + np.pi) % _TURN - np.pi
  around = jnp.argmin(jnp.abs(gap), axis=1).astype(jnp.int32)  # of [V, K]
  is_overhead = _is_overhead(settings, elevation)
  return jnp.where(is_overhead, len(settings.views), around)


def _centers(settings):
  """f32[K], azimuths of the bins, radians, in [0, 2 pi)."""
  degrees = np.array([azimuth for azimuth, _ in settings.views])
  return np.asarray(np.radians(degrees) % _TURN, np.float32)


def _is_overhead(settings, elevation):
  return elevation > np.float32(np.radians(settings.overhead_degrees))


def select(
    prompt: Prompt,
    settings: config.PromptConfig,
    azimuth: jax.Array,
    elevation: jax.Array,
) -> jax.Array:
  """Each view's text embedding (DreamFusion, section 3.2 and appendix A.2).

  Args:
    prompt: embeddings of one prompt.
    settings: the bins that `prompt` was embedded with.
    azimuth: f32[V], radians, any turn; 0 is the front.
    elevation: f32[V], radians.
  Returns:
    f32[V, N, E]: the overhead text above the threshold; below it the text of
    the nearest bin, or the blend of the two bins around the azimuth, linear
    in the angle.
  """
  if settings.blend == "nearest":
    texts_of_views = jnp.concatenate([prompt.views, prompt.overhead[None]])
    return texts_of_views[nearest(settings, azimuth, elevation)]
  center = _centers(settings)
  order = np.argsort(center)
  center = center[order]
  views = prompt.views[order]
  # A single bin is its own neighbour, one whole turn away.
  spacing = (np.roll(center, -1) - center) % _TURN
  spacing = np.where(spacing == 0, _TURN, spacing).astype(np.float32)
  position = azimuth % _TURN
  low = jnp.searchsorted(jnp.asarray(center), position, side="right") - 1
  low = low % len(center)
  share = (position - jnp.asarray(center)[low]) % _TURN
  share = (share / jnp.asarray(spacing)[low])[:, None, None]
  high = (low + 1) % len(center)
  around = (1 - share) * views[low] + share * views[high]
  is_overhead = _is_overhead(settings, elevation)[:, None, None]
  return jnp.where(is_overhead, prompt.overhead, around)


def read_file(path: str) -> list[str]:
  """Prompts of a UTF-8 text file, one per line, in order and each once.

  Raises:
    ValueError: the file cannot be read, is not UTF-8, or holds no prompt.
  """
  try:
    text = pathlib.Path(path).read_text(encoding="utf-8-sig")
  except OSError as error:
    raise ValueError(f"prompts_file: {path}: {error.strerror}.") from error
  except UnicodeDecodeError as error:
    raise ValueError(f"prompts_file: {path} is not UTF-8: {error}.") from error
  lines = [clean(line) for line in text.split("\n") if line.strip()]
  found = list(dict.fromkeys(lines))
  if not found:
    raise ValueError(f"prompts_file: {path} holds no prompt; one per line.")
  return found
