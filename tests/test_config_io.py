"""Tests of dreamjax.config_io."""

import dataclasses
import json
import math

import hypothesis
from hypothesis import strategies
import pytest

from dreamjax import config
from dreamjax import config_io

BASE = config.Config()


def override(*settings):
  return config_io.override(BASE, [s.split("=", 1) for s in settings])


@pytest.mark.parametrize(
    "name", ["toybox", "dreamfusion", "stable_dreamfusion"]
)
def test_shipped_configs_survive_json(name):
  shipped = config_io.load(name)
  assert config_io.from_json(config_io.to_json(shipped)) == shipped


def test_json_is_plain_json():
  text = config_io.to_json(BASE)
  json.loads(text, parse_constant=pytest.fail)  # No Infinity, no NaN.
  assert json.loads(text)["guidance"]["weight_cap"] == "inf"


_floats = strategies.floats(allow_nan=False)


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(
    strategies.builds(
        config.Config,
        guidance=strategies.builds(
            config.GuidanceConfig,
            scale=_floats.map(config.constant),
            weight_cap=_floats,
        ),
        prompt=strategies.builds(
            config.PromptConfig,
            views=strategies.lists(
                strategies.tuples(_floats, strategies.text()), min_size=1
            ).map(tuple),
            negative=strategies.text(),
        ),
        camera=strategies.builds(
            config.CameraConfig, distance=strategies.tuples(_floats, _floats)
        ),
    )
)
def test_json_round_trip_is_exact(any_config):
  assert config_io.from_json(config_io.to_json(any_config)) == any_config


def test_absent_json_fields_take_defaults():
  tree = {"guidance": {"scale": 3.0}}
  assert config_io.from_dict(tree) == override("guidance.scale=3")


def test_overrides_replace_fields_of_every_type():
  changed = override(
      "guidance.rescale=1",
      "guidance.weight_cap=inf",
      "guidance.share_t=True",
      "field.smoothstep=true",
      "train.steps=12",
      "prompt.negative=123",
      "camera.distance=1,2.5",
      "prompt.views=((0, 'front'), (180, 'back, far'))",
  )
  assert changed.guidance.rescale == 1.0
  assert isinstance(changed.guidance.rescale, float)
  assert changed.guidance.weight_cap == math.inf
  assert changed.guidance.share_t is True
  assert changed.field.smoothstep is True
  assert changed.train.steps == 12
  assert changed.prompt.negative == "123"
  assert changed.camera.distance == (1.0, 2.5)
  assert changed.prompt.views == ((0.0, "front"), (180.0, "back, far"))
  assert dataclasses.replace(
      changed,
      guidance=BASE.guidance,
      field=BASE.field,
      train=BASE.train,
      prompt=BASE.prompt,
      camera=BASE.camera,
  ) == BASE


def test_a_number_makes_a_schedule_constant():
  assert override("loss.opacity=0.5").loss.opacity == config.constant(0.5)


def test_one_field_of_a_schedule_leaves_the_others():
  before = BASE.guidance.t_max
  after = override("guidance.t_max.start=0.7").guidance.t_max
  assert after == dataclasses.replace(before, start=0.7)


def test_only_the_outcome_of_all_overrides_has_to_be_valid():
  # Alone, the first would begin after it finishes.
  settings = "field.ipe_variance.begin=0.5", "field.ipe_variance.finish=0.6"
  schedule = override(*settings).field.ipe_variance
  assert (schedule.begin, schedule.finish) == (0.5, 0.6)
  with pytest.raises(config_io.ConfigError, match="begin 0.5 and finish"):
    override(settings[0])


@pytest.mark.parametrize(
    "setting, message",
    [
        ("guidance.scalle=3", "config.guidance.scalle: no such field, did you"
                              " mean 'scale'?"),
        ("guidence.scale=3", "did you mean 'guidance'?"),
        ("guidance.rescale.x=3", "config.guidance.rescale is a number, it has"),
        ("guidance.rescale=many", "guidance.rescale is 'many', want a number"),
        ("guidance.rescale=true", "is True, want a number"),
        ("guidance.share_t=1", "is 1, want true or false"),
        ("train.steps=1.5", "config.train.steps is 1.5, want an integer"),
        ("train.steps=0", "steps is 0, want at least 1"),
        ("camera.distance=1", "config.camera.distance is 1, want tuple"),
        ("camera.distance=1,2,3", "want tuple[float, float]"),
        ("prompt.views=(1,2)", "config.prompt.views is 1, want tuple"),
        ("prompt.blend=cubic", "blend is 'cubic', want one of"),
        ("guidance=3", "config.guidance is 3, want a group of fields"),
        ("guidance={'scale': 3}", "want a group of fields"),
        ("loss.opacity=big", "want a schedule (or a number)"),
    ],
)
def test_bad_overrides_are_answered_in_one_line(setting, message):
  with pytest.raises(config_io.ConfigError) as error:
    override(setting)
  assert message in str(error.value)
  assert "\n" not in str(error.value)


def test_differences_name_the_leaves():
  one = config_io.to_dict(BASE)
  other = config_io.to_dict(override("guidance.t_max.end=0.5", "train.steps=7"))
  assert config_io.differences(one, one) == []
  assert config_io.differences(one, other) == [
      ("guidance.t_max.end", 0.98, 0.5),
      ("train.steps", 800, 7),
  ]
  assert config_io.differences({"a": 1}, {}) == [("a", 1, "missing")]


def test_config_files_are_loaded_by_path(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(
      "from dreamjax import config\n"
      "def get_config():\n"
      "  return config.Config(train=config.TrainConfig(steps=3))\n"
  )
  assert config_io.load(str(path)).train.steps == 3


def test_values_in_config_files_are_as_free_as_on_the_command_line(tmp_path):
  path = tmp_path / "mine.py"
  write = lambda value: path.write_text(
      "from dreamjax import config\n"
      "def get_config():\n"
      f"  guidance = config.GuidanceConfig(scale={value})\n"
      "  return config.Config(guidance=guidance)\n"
  )
  write("7")
  assert config_io.load(str(path)).guidance.scale == config.constant(7.0)
  write("'high'")
  with pytest.raises(config_io.ConfigError, match="guidance.scale is 'high'"):
    config_io.load(str(path))


def test_missing_configs_are_answered_with_the_nearest(tmp_path):
  with pytest.raises(config_io.ConfigError, match="did you mean 'toybox'"):
    config_io.load("toybx")
  with pytest.raises(config_io.ConfigError, match="no such file"):
    config_io.load(str(tmp_path / "none.py"))
  path = tmp_path / "empty.py"
  path.write_text("")
  with pytest.raises(config_io.ConfigError, match="must define get_config"):
    config_io.load(str(path))
