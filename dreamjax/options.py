"""The words of a command line: verb, flags, and the config's overrides."""

import math
import os
import pathlib
from typing import NamedTuple, Sequence

from absl import flags

from dreamjax import config as config_lib
from dreamjax import config_io

USAGE = """\
dreamjax: text to 3D by score distillation.

  dreamjax --prompt="a red mug" --workdir=out/red-mug
      makes the object; the same command goes on where it was stopped
  dreamjax sample --prompt="a red mug" --out=mug.png
      draws images, to see what the weights can do
  dreamjax render --workdir=out/red-mug --config.output.image_size=256
      makes the pictures of a run anew
  dreamjax export --workdir=out/red-mug --config.output.mesh_resolution=256
      makes the meshes of a run anew
  dreamjax evaluate --workdir=out/red-mug
      compares the toy of a run with the toy that was meant
  dreamjax plan --config=stable_dreamfusion --weights=DIR --memory_gb=12
      says what memory a step takes, and which settings make it fit
  dreamjax profile --config=toybox
      says where the time of a step goes
  dreamjax doctor
      says what this installation can use

--config.GROUP.FIELD=VALUE changes any number of a config, for example
--config.guidance.scale=50, --config.camera.distance=1,1.5 or
--config.guidance.t_max.start=0.7.

Exit codes: 0 done, 2 bad input, 3 the run diverged, 4 the scene is empty,
5 the memory does not suffice, 130 or 143 stopped by SIGINT or SIGTERM with a
checkpoint saved.
"""


class InputError(Exception):
  """What the user gave cannot be used; the message is one line."""


class Options(NamedTuple):
  """A command line, parsed.

  Attributes:
    verb: what to do.
    flags: values of the flags.
    settings: (dotted name, text) of the fields of the config to replace.
  """

  verb: str
  flags: flags.FlagValues
  settings: list[tuple[str, str]]

  def config(self) -> config_lib.Config:
    """The config that the flags ask for."""
    return config_io.override(config_io.load(self.flags.config), self.settings)

  def prompts(self) -> tuple[str, ...]:
    """The prompt, or those of the file."""
    from dreamjax import prompts  # Imports jax.

    one, file = self.flags.prompt, self.flags.prompts_file
    if (one is None) == (file is None):
      raise InputError('give either --prompt="..." or --prompts_file=FILE.')
    if file is not None:
      return tuple(prompts.read_file(file))
    return (prompts.clean(_decoded(one)),)

  def loras(self) -> list[tuple[str, float]]:
    """Path and scale of each LoRA."""
    loras = []
    for text in self.flags.lora:
      path, colon, scale = text.rpartition(":")
      try:
        lora = (path, float(scale)) if colon else (text, 1.0)
      except ValueError:
        lora = (text, 1.0)  # The colon belongs to the name.
      if not lora[0] or not math.isfinite(lora[1]):
        raise InputError(f"--lora={text}: want FILE or FILE:SCALE.")
      loras.append(lora)
    return loras

  def workdir(self) -> pathlib.Path:
    """The folder of the run."""
    if not self.flags.workdir:
      raise InputError("give --workdir=FOLDER.")
    return pathlib.Path(self.flags.workdir)


def help_text() -> str:
  """Usage and all flags."""
  return USAGE + _flag_values().get_help()


def _flag_values() -> flags.FlagValues:
  """The flags, not yet parsed."""
  values = flags.FlagValues()
  text = lambda *args: flags.DEFINE_string(*args, flag_values=values)
  text("prompt", None, "What to make.")
  text("prompts_file", None, "UTF-8 file with one prompt per line.")
  text(
      "workdir",
      None,
      "Folder of the run. With --prompts_file each prompt gets a folder in it.",
  )
  text(
      "config",
      "toybox",
      "Name of a shipped config, or a Python file with get_config(), which is"
      " executed.",
  )
  text(
      "weights",
      "toybox",
      "A Stable Diffusion 1.x or 2.x: a folder in diffusers format, a"
      " .safetensors file in the original layout, or a name on the Hugging Face"
      " hub (owner/model). Or `toybox`, the prior that comes with dreamjax.",
  )
  flags.DEFINE_enum(
      "prediction",
      None,
      ["epsilon", "v_prediction"],
      "What the UNet of a single file predicts. Must be said for 2.x, whose"
      " files do not tell: `epsilon` for its base models, `v_prediction` for"
      " the others. 1.x is taken for `epsilon`; a folder tells itself.",
      flag_values=values,
  )
  flags.DEFINE_multi_string(
      "lora",
      [],
      "FILE or FILE:SCALE of a LoRA to merge into the weights (.safetensors of"
      " diffusers, PEFT or kohya's scripts). May be repeated.",
      flag_values=values,
  )
  flags.DEFINE_multi_string(
      "embedding",
      [],
      "File of a textual inversion (.safetensors): its word can be used in the"
      " prompt. May be repeated.",
      flag_values=values,
  )
  text(
      "restore",
      "auto",
      "`auto` continues the run in --workdir, `never` starts it anew, the"
      " workdir of another run gives the first state.",
  )
  text("out", "sample.png", "Image that `sample` writes.")
  text("trace", None, "Folder for a trace of `profile`, for TensorBoard.")
  flags.DEFINE_float(
      "memory_gb",
      None,
      "GiB on each device that `plan` may use; it then looks for settings that"
      " fit. Without, it only compares with what the device has.",
      lower_bound=0.0,
      flag_values=values,
  )
  flags.DEFINE_integer(
      "seed", 0, "Seed of all random numbers.", flag_values=values
  )
  flags.DEFINE_integer(
      "devices",
      0,
      "Devices to use; 0 takes as many as divide the work.",
      lower_bound=0,
      flag_values=values,
  )
  return values


def parse(argv: Sequence[str], verbs: Sequence[str]) -> Options:
  """Options of a command line.

  Args:
    argv: program name, then a verb and flags in any order.
    verbs: the verbs there are; the first one is the default.
  Raises:
    InputError: an unknown verb or flag, or a flag without its value.
  """
  rest, settings = [], []
  arguments = iter(argv)
  for argument in arguments:
    name, equals, value = argument.lstrip("-").partition("=")
    if argument.startswith("-") and name.startswith("config."):
      if not equals:
        value = next(arguments, None)
        if value is None:
          raise InputError(f"--{name} needs a value.")
      settings.append((name.removeprefix("config."), _decoded(value)))
    else:
      rest.append(argument)
  options = _flag_values()
  options.set_gnu_getopt(True)
  try:
    words = options(rest)[1:]
  except flags.Error as error:
    raise InputError(" ".join(str(error).split())) from error
  if len(words) > 1 or not set(words) <= set(verbs):
    raise InputError(
        f"{' '.join(words)!r} is no command; there are {', '.join(verbs)}. A"
        ' prompt is given as --prompt="...".'
    )
  return Options([*words, verbs[0]][0], options, settings)


def _decoded(text: str) -> str:
  """An argument as UTF-8, whatever the locale took it for."""
  try:
    return os.fsencode(text).decode("utf-8")
  except UnicodeDecodeError as error:
    raise InputError(f"{text!r} is not UTF-8.") from error
