"""The procedural world of toys, and the Stable Diffusion that knows it."""

import pathlib

from dreamjax.toybox import words

WEIGHTS = pathlib.Path(__file__).parent / "weights"
"""The shipped prior, a model folder in diffusers format."""

check_words = words.check_words
