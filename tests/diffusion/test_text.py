"""Words to token ids."""

import logging as std_logging

import numpy as np

from dreamjax.diffusion import text

START, END = 0, 1


def test_each_known_word_is_one_token(pipeline):
  np.testing.assert_array_equal(
      pipeline.tokenizer(["a red mug"]),
      [[START, 2, 13, 11, END, END, END, END]],
  )


def test_case_and_spaces_do_not_matter(pipeline):
  np.testing.assert_array_equal(
      pipeline.tokenizer(["  A  RED\nmug "]), pipeline.tokenizer(["a red mug"])
  )


def test_the_empty_text_is_start_end_and_padding(pipeline):
  ids = pipeline.tokenizer([""])
  assert ids.dtype == np.int32
  np.testing.assert_array_equal(ids, [[START] + [END] * 7])


def test_an_unknown_word_still_has_ids(pipeline):
  ids = pipeline.tokenizer(["zebra"])
  assert ids.max() < pipeline.tokenizer.size


def test_a_long_text_is_cut_and_the_warning_shows_what_was_lost(
    pipeline, caplog
):
  with caplog.at_level(std_logging.WARNING):
    ids = pipeline.tokenizer(["a red mug, " * 2 + "a mug"])
  assert ids.shape == (1, 8)
  assert ids[0, -1] == END
  assert len(caplog.records) == 1
  assert "mug , a mug" in caplog.text


def test_padding_may_be_another_token(tokenizer_folder, tmp_path):
  # Stable Diffusion 2.x pads with "!" (id 0).
  source = text.Tokenizer(tokenizer_folder, 8)
  source.save(tmp_path)
  for name in ("tokenizer_config.json", "special_tokens_map.json"):
    path = tmp_path / name
    content = path.read_text()
    path.write_text(
        content.replace(
            '"pad_token": "<|endoftext|>"', '"pad_token": "<|startoftext|>"'
        )
    )
  np.testing.assert_array_equal(
      text.Tokenizer(tmp_path, 8)(["a"]), [[START, 2, END] + [START] * 5]
  )


def test_the_text_encoder_bounds_the_length(tokenizer_folder):
  assert text.Tokenizer(tokenizer_folder, 5)(["a"]).shape == (1, 5)
