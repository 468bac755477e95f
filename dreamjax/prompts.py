"""View-dependent prompts: the words around an object, embedded once.

K azimuth bins, V views, N tokens, E embedding width, M texts that a view is
kept off.
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


class Texts(NamedTuple):
  """What the denoiser is told about views.

  Attributes:
    context: f32[V, N, E], what each shows.
    empty: f32[N, E], the negative prompt, the same for all.
    opposed: f32[M, V, N, E], what each must not look like.
    weight: f32[M, V], how strongly it must not, >= 0.
  """

  context: jax.Array
  empty: jax.Array
  opposed: jax.Array
  weight: jax.Array


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


def mix(
    settings: config.PromptConfig, azimuth: jax.Array, elevation: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Which texts describe a view, and how much each of them.

  Nearest, or blended linearly in the azimuth (DreamFusion, section 3.2 and
  appendix A.2); or in the elevation as well, from 0 to where the words for
  "from above" stand alone.

  Args:
    settings: K azimuth bins, the overhead elevation and the way to blend.
    azimuth: f32[V], radians, any turn; 0 is the front.
    elevation: f32[V], radians.
  Returns:
    index: i32[V, 3], the two bins around the azimuth, and K, which stands for
      overhead.
    share: f32[V, 3], their weights, which add up to 1.
  """
  degrees = np.array([azimuth for azimuth, _ in settings.views])
  center = np.asarray(np.radians(degrees) % _TURN, np.float32)
  order = np.argsort(center)
  center = center[order]
  # A single bin is its own neighbour, one whole turn away.
  spacing = (np.roll(center, -1) - center) % _TURN
  spacing = np.where(spacing == 0, _TURN, spacing).astype(np.float32)
  position = azimuth % _TURN
  low = jnp.searchsorted(jnp.asarray(center), position, side="right") - 1
  low = low % len(center)
  part = (position - jnp.asarray(center)[low]) % _TURN
  part = part / jnp.asarray(spacing)[low]
  if settings.blend == "nearest":
    part = jnp.round(part)
  alone = np.float32(np.radians(settings.overhead_degrees))
  if settings.blend == "bilinear":
    above = jnp.clip(elevation / alone, 0.0, 1.0)
  else:
    above = (elevation > alone).astype(jnp.float32)
  order = jnp.asarray(order, jnp.int32)
  index = [order[low], order[(low + 1) % len(center)]]
  index.append(jnp.full_like(index[0], len(center)))
  share = [(1 - above) * (1 - part), (1 - above) * part, above]
  return jnp.stack(index, axis=1), jnp.stack(share, axis=1)


def oppose(
    settings: config.PromptConfig, azimuth: jax.Array, elevation: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Which texts a view is kept off, and how strongly, at strength 1.

  Front and side, each by a curve of the azimuth (Perp-Neg, Armandpour et al.
  2023, with the curves that its authors gave stable-dreamfusion). From above
  nothing is opposed.

  Args:
    settings: as for `mix`.
    azimuth: f32[V], radians, any turn; 0 is the front.
    elevation: f32[V], radians.
  Returns:
    index: i32[V, M=2], the bins nearest to the front and to the view's side.
    weight: f32[V, M=2], >= 0.
  """
  degrees = np.array([azimuth for azimuth, _ in settings.views])
  front, left, right = (
      np.argmin(np.abs((degrees - aim + 180) % 360 - 180))
      for aim in (0.0, 90.0, -90.0)
  )
  turned = (azimuth + np.pi) % _TURN - np.pi
  side = jnp.where(turned >= 0, jnp.int32(left), jnp.int32(right))
  index = jnp.stack([jnp.full_like(side, front), side], axis=1)
  # 0 at the front, 1 at the side, 2 at the back.
  place = jnp.abs(turned) / np.float32(np.pi / 2)
  off_front = jnp.where(
      place < 0.2, 0.0, jnp.exp(-2 * jnp.maximum(1 - place, 0.0))
  )
  off_side = jnp.where(
      place < 1,
      jnp.where(place > 0.8, 0.0, jnp.exp(-10 * place)),
      jnp.where(place < 1.2, 0.0, jnp.exp(-10 * (2 - place)) / 2),
  )
  _, share = mix(settings, azimuth, elevation)
  weight = jnp.stack([off_front, off_side], axis=1)
  return index, weight * (1 - share[:, 2:])


def select(
    prompt: Prompt,
    settings: config.PromptConfig,
    strength: float,
    azimuth: jax.Array,
    elevation: jax.Array,
) -> Texts:
  """What the denoiser is told about each view.

  Args:
    prompt: embeddings of one prompt.
    settings: the bins that `prompt` was embedded with.
    strength: of `oppose`; with 0 nothing is opposed and M is 0.
    azimuth: f32[V], radians, any turn; 0 is the front.
    elevation: f32[V], radians.
  """
  texts_of_views = jnp.concatenate([prompt.views, prompt.overhead[None]])
  index, share = mix(settings, azimuth, elevation)
  context = blend(texts_of_views[index], share)
  index, weight = oppose(settings, azimuth, elevation)
  count = index.shape[1] if strength else 0
  index, weight = index.T[:count], strength * weight.T[:count]
  return Texts(context, prompt.empty, texts_of_views[index], weight)


def blend(embedding: jax.Array, share: jax.Array) -> jax.Array:
  """f32[V, N, E], the weighted sums of f32[V, 3, N, E] with f32[V, 3]."""
  return jnp.sum(share[..., None, None] * embedding, axis=1)


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
