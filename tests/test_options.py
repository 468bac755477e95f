"""Tests of dreamjax.options."""

import pytest

from dreamjax import config as config_lib
from dreamjax import config_io
from dreamjax import options

VERBS = ["fit", "sample"]


def parse(*words):
  return options.parse(["dreamjax", *words], VERBS)


def test_fit_is_the_default_verb():
  assert parse("--prompt=a mug").verb == "fit"


@pytest.mark.parametrize(
    "words", [("sample", "--prompt=a mug"), ("--prompt=a mug", "sample")]
)
def test_verb_may_stand_anywhere(words):
  parsed = parse(*words)
  assert (parsed.verb, parsed.prompts()) == ("sample", ("a mug",))


def test_overrides_are_taken_in_both_spellings():
  parsed = parse(
      "--config.guidance.scale=50", "--config.train.steps", "7", "--seed", "3"
  )
  assert parsed.settings == [("guidance.scale", "50"), ("train.steps", "7")]
  assert parsed.flags.seed == 3
  config = parsed.config()
  assert config.guidance.scale == config_lib.constant(50.0)
  assert config.train.steps == 7
  toybox = config_io.load("toybox")
  assert config.prompt == toybox.prompt


def test_prompts_come_from_one_place(tmp_path):
  (tmp_path / "prompts").write_text("a mug\na car\n")
  file = f"--prompts_file={tmp_path / 'prompts'}"
  assert parse(file).prompts() == ("a mug", "a car")
  for words in [(), (file, "--prompt=a mug")]:
    with pytest.raises(options.InputError, match="either --prompt"):
      parse(*words).prompts()


def test_blank_prompt_is_refused():
  with pytest.raises(ValueError, match="prompt is empty"):
    parse("--prompt= ").prompts()


def test_prompts_are_utf8_in_any_locale():
  # What Python makes of UTF-8 bytes where the locale is C.
  mangled = "ein Käse".encode().decode("ascii", "surrogateescape")
  assert parse(f"--prompt={mangled}").prompts() == ("ein Käse",)
  with pytest.raises(options.InputError, match="is not UTF-8"):
    parse("--prompt=K\udcffse").prompts()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--promt=x"], "Did you mean: prompt"),
        (["--seed=x"], "--seed=x"),
        (["--devices=-1"], "lower_bound|non-negative|-1"),
        (["--prediction=x"], "epsilon|v_prediction"),
        (["a red mug"], r'is no command.*--prompt="..."'),
        (["sample", "fit"], "'sample fit' is no command"),
        (["--config.train.steps"], "--config.train.steps needs a value"),
    ],
)
def test_mistakes_are_answered_in_one_line(words, message):
  with pytest.raises(options.InputError, match=message) as error:
    parse(*words)
  assert "\n" not in str(error.value)


def test_loras_have_a_scale_or_one():
  words = ["a.safetensors", "b.safetensors:0.5", "c:d.safetensors", "e:-1"]
  parsed = parse(*(f"--lora={word}" for word in words))
  assert parsed.loras() == [
      ("a.safetensors", 1.0),
      ("b.safetensors", 0.5),
      ("c:d.safetensors", 1.0),
      ("e", -1.0),
  ]
  assert parse().loras() == []


@pytest.mark.parametrize("word", ["", ":0.5", "a:nan", "a:inf"])
def test_a_lora_without_file_or_scale_is_refused(word):
  with pytest.raises(options.InputError, match="want FILE or FILE:SCALE"):
    parse(f"--lora={word}").loras()


def test_missing_workdir_is_named():
  with pytest.raises(options.InputError, match="--workdir=FOLDER"):
    parse("--prompt=x").workdir()


def test_help_names_every_flag():
  text = options.help_text()
  for name in ("prompt", "prompts_file", "workdir", "config", "weights",
               "prediction", "lora", "embedding", "restore", "seed", "devices",
               "out"):
    assert f"--{name}:" in text
