"""The language of the toybox: which words there are, and what they name."""

import difflib
import re
from typing import NamedTuple

COLORS = {
    "red": (0.80, 0.10, 0.08),
    "orange": (0.95, 0.45, 0.05),
    "yellow": (0.95, 0.82, 0.12),
    "green": (0.12, 0.58, 0.18),
    "blue": (0.12, 0.25, 0.82),
    "purple": (0.50, 0.15, 0.65),
    "pink": (0.95, 0.50, 0.65),
    "white": (0.92, 0.92, 0.90),
}
"""The colours a toy comes in, linear RGB."""

KINDS = (
    "mug",
    "head",
    "car",
    "house",
    "snowman",
    "chair",
    "teapot",
    "mushroom",
    "rocket",
    "duck",
    "robot",
    "tree",
)
"""The kinds of toys."""

VIEWS = (
    "front view",
    "front left view",
    "left side view",
    "back left view",
    "back view",
    "back right view",
    "right side view",
    "front right view",
)
"""Words for the eight azimuths 0, 45, ... 315 degrees."""

OVERHEAD = "overhead view"

_ARTICLES = ("a", "an", "the")

VOCABULARY = tuple(
    dict.fromkeys((
        *_ARTICLES,
        ",",
        *COLORS,
        *KINDS,
        *" ".join((*VIEWS, OVERHEAD)).split(),
    ))
)
"""Every word that the prior was taught, each one token."""


class Caption(NamedTuple):
  """What a prompt asks for.

  Attributes:
    kind: one of KINDS.
    color: a key of COLORS.
  """

  kind: str
  color: str


class UnknownWords(ValueError):
  """A prompt that the toybox cannot know."""


def check_words(text: str) -> None:
  """Refuses a prompt with words that the prior was never taught.

  Raises:
    UnknownWords: naming them, the words there are, and the way to others.
  """
  unknown = [word for word in _split(text) if word not in VOCABULARY]
  if unknown:
    raise UnknownWords(f"{_unknown(unknown)} {_advice()}")


def parse(text: str) -> Caption:
  """The toy that a prompt names: one colour and one kind, in this order.

  Raises:
    UnknownWords: it says something else.
  """
  check_words(text)
  named = tuple(word for word in _split(text) if word not in _ARTICLES)
  if len(named) != 2 or named[0] not in COLORS or named[1] not in KINDS:
    raise UnknownWords(
        f'{text!r} names no single toy of one colour, such as "a red mug".'
        f" {_advice()}"
    )
  return Caption(kind=named[1], color=named[0])


def caption(kind: str, color: str = "", view: str = "") -> str:
  """The caption of a picture, as the prior was taught it."""
  subject = f"{color} {kind}".strip()
  article = "an" if subject[0] in "aeiou" else "a"
  text = f"{article} {subject}"
  return f"{text}, {view}" if view else text


def _split(text):
  """Lower-case words and commas, as the tokenizer sees them."""
  return re.findall(r"[^\W\d_]+|[^\s\w]|[\d_]+", text.lower())


def _unknown(unknown):
  """As: 'robt' is no word of the toybox (did you mean 'robot'?)."""
  verb = "is no word" if len(unknown) == 1 else "are no words"
  known = (*COLORS, *KINDS)
  near = [difflib.get_close_matches(word, known, n=1) for word in unknown]
  guesses = ", ".join(repr(match[0]) for match in near if match)
  hint = f" (did you mean {guesses}?)" if guesses else ""
  named = ", ".join(map(repr, unknown))
  return f"{named} {verb} of the toybox{hint}."


def _advice():
  return (
      f"It knows the toys {', '.join(KINDS)}, in {', '.join(COLORS)}. For"
      " everything else bring Stable Diffusion weights: --weights=DIR."
  )
