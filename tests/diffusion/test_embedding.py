"""Words of textual inversion."""

import ml_dtypes
import numpy as np
import pytest

from dreamjax.diffusion import embedding
from dreamjax.diffusion import model_folder
from dreamjax.diffusion import tensors
from dreamjax.diffusion import text
from dreamjax.diffusion import weights

ROWS = np.random.default_rng(0).standard_normal((3, 32), np.float32)


def write(folder, name, arrays):
  path = folder / f"{name}.safetensors"
  tensors.write(path, arrays)
  return path


def test_the_key_or_the_file_names_the_word(tmp_path):
  paths = [
      write(tmp_path, "one", {"<cat>": ROWS[0]}),
      write(tmp_path, "dog", {"emb_params": ROWS.astype(np.float16)}),
      write(tmp_path, "two", {"<cow>": ROWS[:1]}),
  ]
  words, vectors = embedding.read(paths, 32)
  assert words == ["<cat>", "dog", "dog_1", "dog_2", "<cow>"]
  np.testing.assert_array_equal(
      vectors, [ROWS[0], *ROWS.astype(np.float16).astype(np.float32), ROWS[0]]
  )
  assert vectors.dtype == np.float32


def test_no_files_are_no_words():
  words, vectors = embedding.read([], 32)
  assert words == [] and vectors.shape == (0, 32)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({}, "0 tensors, want one"),
        ({"clip_l": ROWS, "clip_g": ROWS}, "2 tensors.*Stable Diffusion XL"),
        ({"<cat>": np.zeros((2, 9), "f4")}, r"\(2, 9\), want vectors of 32"),
        ({"<cat>": np.zeros((2, 1, 32), "f4")}, "want vectors of 32"),
        ({"<cat>": np.zeros(1, "f4")}, r"<cat> is \(1, 1\), want"),
        ({"<cat>": np.zeros((0, 32), "f4")}, r"is \(0, 32\), want"),
        ({"<cat>": np.full(32, np.nan, "f4")}, "<cat> holds NaN"),
        ({"<cat>": np.zeros(32, "i4")}, "<cat> is int32"),
        ({"": ROWS}, "'' is no name for a word"),
        ({" a": ROWS}, "' a' is no name for a word"),
    ],
)
def test_a_wrong_file_is_one_clear_error(arrays, message, tmp_path):
  with pytest.raises(tensors.WeightsError, match=message):
    embedding.read([write(tmp_path, "a", arrays)], 32)


@pytest.mark.parametrize(
    "first, second, rows",
    [
        ("<cat>", "<cat>", 1),
        ("<cat>", "<cat>_2", 3),
        ("<cat>_1", "<cat>", 1),  # It would be taken for one of its vectors.
        ("<cat>", "<cat>_1", 1),
    ],
)
def test_a_name_is_there_once(first, second, rows, tmp_path):
  paths = [
      write(tmp_path, "a", {first: ROWS[:rows]}),
      write(tmp_path, "b", {second: ROWS[:rows]}),
  ]
  with pytest.raises(tensors.WeightsError, match="b.saf.*another embedding"):
    embedding.read(paths, 32)


def test_a_pickle_is_refused(tmp_path):
  (tmp_path / "a.bin").write_bytes(b"PK\x03\x04" + bytes(100))
  with pytest.raises(tensors.WeightsError, match="a pickle"):
    embedding.read([tmp_path / "a.bin"], 32)


def test_a_loaded_model_knows_the_words(pipeline, folder, tmp_path):
  paths = [
      write(tmp_path, "one", {"<cat>": ROWS[0]}),
      write(tmp_path, "dog", {"emb_params": ROWS[1:]}),
  ]
  loaded = weights.load(folder, embeddings=paths)
  # The tokenizer has 14 ids, the table 16 rows.
  assert loaded.model.text_encoder.vocab_size == 17
  ids = loaded.tokenizer(["a <cat> dog mug"])[0].tolist()
  assert ids == [0, 2, 14, 15, 16, 11, 1, 1]
  table = lambda model: model.params["text_encoder"][
      "embeddings.token_embedding"
  ]["embedding"]
  np.testing.assert_array_equal(table(loaded)[:14], table(pipeline)[:14])
  np.testing.assert_array_equal(table(loaded)[14:], ROWS)
  half = weights.load(folder, "bfloat16", embeddings=paths)
  np.testing.assert_array_equal(
      table(half)[14:], ROWS.astype(ml_dtypes.bfloat16)
  )

  model_folder.save(tmp_path / "saved", loaded)
  again = weights.load(tmp_path / "saved")
  assert again.tokenizer(["a <cat> dog mug"])[0].tolist() == ids
  np.testing.assert_array_equal(table(again), table(loaded))


def test_a_word_that_the_tokenizer_has_is_refused(folder, tmp_path):
  path = write(tmp_path, "one", {"red</w>": ROWS[0]})
  with pytest.raises(tensors.WeightsError, match="'red</w>' is a token alr"):
    weights.load(folder, embeddings=[path])


def test_a_vocabulary_with_holes_is_refused(tmp_path):
  vocabulary = {text.START: 0, text.END: 1, "a</w>": 5}
  text.write(tmp_path, vocabulary, (), 8)
  with pytest.raises(tensors.WeightsError, match="has holes"):
    text.Tokenizer(tmp_path, 8, words=["<cat>"])


@pytest.mark.parity
@pytest.mark.parametrize("torch_pipeline", ["1.x"], indirect=True)
def test_words_are_those_of_diffusers(
    torch_pipeline, torch_folder, assert_same_answers, tmp_path
):
  diffusers = pytest.importorskip("diffusers")
  torch = pytest.importorskip("torch")
  del torch_pipeline  # It stays as it is for others.
  pipe = diffusers.StableDiffusionPipeline.from_pretrained(
      torch_folder, dtype=torch.float32
  )
  rows = np.random.default_rng(0).standard_normal((3, 128), np.float32)
  cat = write(tmp_path, "cat", {"<cat>": rows[:2]})
  dog = write(tmp_path, "dog", {"emb_params": rows[2:]})
  ours = weights.load(torch_folder, embeddings=[cat, dog])
  for path, token in ((cat, None), (dog, "dog")):
    pipe.load_textual_inversion(
        str(tmp_path), weight_name=path.name, token=token
    )
  words = "a red <cat> dog"
  prompt = pipe.maybe_convert_prompt(words, pipe.tokenizer)
  want = pipe.tokenizer(prompt, padding="max_length", max_length=8).input_ids
  assert len(set(want)) == 7  # All three vectors are in it.
  np.testing.assert_array_equal(ours.tokenizer([words]), [want])
  assert_same_answers(pipe, ours, words)
