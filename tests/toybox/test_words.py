"""Tests of dreamjax.toybox.words and of the tokenizer made from it."""

import pytest

from dreamjax.diffusion import text
from dreamjax.toybox import pictures
from dreamjax.toybox import prior
from dreamjax.toybox import words


@pytest.mark.parametrize("prompt", ["a red mug", "Red  MUG", "the red mug"])
def test_prompt_names_a_toy(prompt):
  assert words.parse(prompt) == words.Caption(kind="mug", color="red")


def test_unknown_words_are_named_with_what_is_known_and_the_way_out():
  with pytest.raises(words.UnknownWords) as caught:
    words.check_words("a red dragon with a yelow hat")
  message = str(caught.value)
  assert "'dragon', 'with', 'yelow', 'hat' are no words" in message
  assert "did you mean" in message and "'yellow'" in message
  assert "mushroom" in message and "--weights=DIR" in message


@pytest.mark.parametrize("prompt", ["a mug", "a mug red", "a red mug a car"])
def test_other_wordings_name_no_toy(prompt):
  words.check_words(prompt)
  with pytest.raises(words.UnknownWords, match="no single toy"):
    words.parse(prompt)


def test_every_caption_is_made_of_known_words_and_fits(tmp_path):
  text.write(tmp_path, *prior.vocabulary(), prior.LENGTH)
  tokenizer = text.Tokenizer(tmp_path, prior.LENGTH)
  captions = pictures.captions()
  token = tokenizer(captions)
  assert tokenizer.size <= prior.MODEL.text_encoder.vocab_size
  assert len(set(map(tuple, token))) == len(captions)
  for caption, row in zip(captions, token):
    words.check_words(caption)
    count = len(caption.replace(",", " ,").split())
    # Start, one token a word, and an end that was not cut off.
    assert (row != tokenizer.padding).sum() == count + 1
    assert row[count + 1] == tokenizer.end


def test_caption_index_counts_the_captions():
  captions = pictures.captions()
  kind, color = words.KINDS.index("duck"), list(words.COLORS).index("orange")
  view = words.VIEWS.index("back view")
  find = lambda *index: captions[pictures.caption_index(*index)]
  assert find(kind, color, view) == "an orange duck, back view"
  assert find(kind, len(words.COLORS), view) == "a duck, back view"
  assert find(kind, color, len(words.VIEWS)) == "an orange duck, overhead view"
  assert find(kind, color, len(words.VIEWS) + 1) == "an orange duck"
