"""Tests of dreamjax.prompts."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import config
from dreamjax import config_io
from dreamjax import prompts

FOUR = config.PromptConfig()
LINEAR = config.PromptConfig(blend="linear")
EIGHT = config_io.load("toybox").prompt
BILINEAR = config.PromptConfig(blend="bilinear", overhead_degrees=80.0)


def numbered(settings):
  """A prompt whose k-th view is the constant k, overhead 100, empty -1."""
  bins = len(settings.views)
  return prompts.Prompt(
      views=jnp.broadcast_to(
          jnp.arange(bins, dtype=jnp.float32)[:, None, None], (bins, 2, 3)
      ),
      overhead=jnp.full((2, 3), 100.0),
      empty=jnp.full((2, 3), -1.0),
  )


def selected(settings, azimuth_degrees, elevation_degrees=0.0):
  azimuth = jnp.radians(jnp.asarray(azimuth_degrees, jnp.float32))
  elevation = jnp.broadcast_to(
      jnp.radians(jnp.float32(elevation_degrees)), azimuth.shape
  )
  texts = jax.jit(prompts.select, static_argnums=(1, 2))(
      numbered(settings), settings, 0.0, azimuth, elevation
  )
  assert texts.weight.shape == (0, *azimuth.shape)
  np.testing.assert_array_equal(texts.empty, -1.0)
  chosen = texts.context
  assert chosen.shape == (*azimuth.shape, 2, 3)
  assert chosen.dtype == jnp.float32
  return np.asarray(chosen[:, 0, 0])


def test_view_words_follow_the_prompt():
  settings = config.PromptConfig(
      views=((0.0, "front view"), (180.0, "back view")), negative="blurry"
  )
  assert prompts.texts("  a red\tmug ", settings) == [
      "a red mug, front view",
      "a red mug, back view",
      "a red mug, overhead view",
      "blurry",
  ]


def test_all_texts_are_embedded_in_one_call():
  calls = []

  def tokenize(texts):
    calls.append(texts)
    return np.array([[len(text), i] for i, text in enumerate(texts)], np.int32)

  prompt = prompts.embed(
      "a mug", FOUR, lambda token: jnp.float32(token)[..., None], tokenize
  )
  assert len(calls) == 1
  np.testing.assert_array_equal(prompt.views[:, 1, 0], [0, 1, 2, 3])
  assert prompt.overhead[1, 0] == 4
  np.testing.assert_array_equal(prompt.empty[:, 0], [0, 5])  # "" has length 0


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_blank_prompt_is_refused(text):
  with pytest.raises(ValueError, match="prompt is empty"):
    prompts.texts(text, FOUR)


def test_nearest_bins_are_quadrants_around_their_centres():
  azimuth = [0, 44.9, 45.1, 134.9, 135.1, 180, -180, -135.1, -134.9, -45.1, -1]
  wanted = [0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 0]
  np.testing.assert_array_equal(selected(FOUR, azimuth), wanted)


def test_azimuth_may_be_any_turn():
  turns = np.array([100.0, 100.0 - 720, 100.0 + 360])
  for settings in (FOUR, LINEAR):
    np.testing.assert_allclose(
        selected(settings, turns), selected(settings, [100.0] * 3), atol=1e-5
    )


def test_linear_blend_interpolates_between_neighbours():
  azimuth = [0, 45, 90, 117, 180, 270]
  wanted = [0, 0.5, 1, 1.3, 2, 3]
  np.testing.assert_allclose(selected(LINEAR, azimuth), wanted, atol=1e-5)


def test_linear_blend_closes_the_circle():
  # Between bin 3 at 270 degrees and bin 0 at 360.
  wanted = [3 * 2 / 3, 3 * 1 / 3, 0]
  np.testing.assert_allclose(
      selected(LINEAR, [300, -30, 360]), wanted, atol=1e-5
  )


def test_linear_blend_takes_bins_in_any_order_and_at_any_offset():
  settings = config.PromptConfig(
      views=((200.0, "b"), (20.0, "a"), (320.0, "c")), blend="linear"
  )
  # 350 lies half way from "c" (index 2) to "a" (index 1, 60 degrees on).
  np.testing.assert_allclose(
      selected(settings, [20, 200, 320, 350, 110]),
      [1, 0, 2, 1.5, 0.5],
      atol=1e-5,
  )


def test_one_bin_serves_every_azimuth():
  settings = config.PromptConfig(views=((30.0, "view"),), blend="linear")
  np.testing.assert_array_equal(selected(settings, [0, 30, 200]), [0, 0, 0])


def test_overhead_words_take_over_above_the_threshold():
  assert selected(FOUR, [90.0], 59.9) == 1
  assert selected(FOUR, [90.0], 60.1) == 100
  assert selected(LINEAR, [30.0], 85.0) == 100


def test_bilinear_blend_rises_towards_overhead():
  # Bin 1 at azimuth 90, overhead 100: 1 + 99 share.
  for elevation, share in ((-10, 0), (0, 0), (20, 0.25), (60, 0.75), (80, 1)):
    np.testing.assert_allclose(
        selected(BILINEAR, [90.0], elevation), 1 + 99 * share, rtol=1e-5
    )
  assert selected(BILINEAR, [90.0], 85.0) == 100
  np.testing.assert_allclose(
      selected(BILINEAR, [45.0, 117.0], 40.0), [50.25, 50.65], rtol=1e-5
  )


@pytest.mark.parametrize("settings", (FOUR, LINEAR, BILINEAR))
def test_shares_of_a_mix_add_up(settings):
  azimuth = jnp.linspace(-7.0, 7.0, 50)
  index, share = prompts.mix(settings, azimuth, jnp.linspace(-0.2, 1.5, 50))
  np.testing.assert_allclose(share.sum(1), 1.0, rtol=1e-6)
  assert share.min() >= 0
  assert index.dtype == jnp.int32
  np.testing.assert_array_equal(index[:, 2], 4)


def published(degrees):
  """Weights of front and side as stable-dreamfusion has them, over -2."""
  far = abs(degrees)
  if far < 90:
    ratio = 1 - far / 90
    return (
        0 if ratio > 0.8 else np.exp(-2 * ratio),
        0 if ratio < 0.2 else np.exp(-10 * (1 - ratio)),
    )
  ratio = 1 - (far - 90) / 90
  return 1, 0 if ratio > 0.8 else np.exp(-10 * ratio) / 2


@pytest.mark.parametrize("settings", (FOUR, EIGHT))
def test_front_and_side_are_opposed_as_published(settings):
  names = [words for _, words in settings.views]
  degrees = np.array([-175, -100, -89, -40, -10, 1, 17, 50, 71, 95, 109, 179.0])
  index, weight = jax.jit(prompts.oppose, static_argnums=0)(
      settings, jnp.radians(degrees + 360), jnp.zeros(len(degrees))
  )
  np.testing.assert_allclose(
      weight, [published(one) for one in degrees], atol=1e-5
  )
  for bins, one in zip(np.asarray(index), degrees):
    # The four have one word for both sides, but a bin for each.
    left, right = sorted(
        i for i, name in enumerate(names) if re.match(r"(\w+ )?side", name)
    )
    assert names[bins[0]] == "front view"
    assert bins[1] == (left if one >= 0 else right)


def test_opposed_texts_follow_strength_and_fade_from_above():
  select = functools.partial(
      prompts.select, numbered(BILINEAR), BILINEAR, 2.0, jnp.array([-np.pi])
  )
  for elevation, share in ((0.0, 1.0), (40.0, 0.5), (80.0, 0.0)):
    texts = select(jnp.radians(jnp.array([elevation])))
    # At the back: front with 2, the side with half of it.
    np.testing.assert_allclose(
        texts.weight, [[2.0 * share], [1.0 * share]], atol=1e-5
    )
    np.testing.assert_array_equal(texts.opposed[:, 0, 0, 0], [0, 3])


def test_prompts_file_is_read_once_each_in_order(tmp_path):
  path = tmp_path / "prompts.txt"
  lines = "\ufeffa red mug\r\n\r\n  a blue  car\r\na red mug\n\tein Käse 🧀"
  path.write_bytes(lines.encode())
  assert prompts.read_file(path) == ["a red mug", "a blue car", "ein Käse 🧀"]


def test_prompts_file_names_its_fault(tmp_path):
  path = tmp_path / "prompts.txt"
  with pytest.raises(ValueError, match="prompts.txt: No such file"):
    prompts.read_file(path)
  path.write_bytes(b"\n \n")
  with pytest.raises(ValueError, match="holds no prompt"):
    prompts.read_file(path)
  path.write_bytes(b"caf\xe9")
  with pytest.raises(ValueError, match="not UTF-8"):
    prompts.read_file(path)
