"""Models that are named instead of given, from the Hugging Face hub.

huggingface_hub does the work, and its own settings count: HF_HOME says where
downloads lie, HF_HUB_OFFLINE=1 takes only what lies there. It is imported when
the first name is looked up.
"""

import pathlib
import re
from collections.abc import Iterable

from dreamjax.diffusion import tensors
from dreamjax.diffusion import text

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""What can be a name: owner/model."""

CLIP = "openai/clip-vit-large-patch14"
"""Where the tokenizer of all Stable Diffusions 1.x and 2.x is from."""


def model(name: str, stems: dict[str, str]) -> pathlib.Path:
  """Folder of a model in diffusers format, downloaded if it is not there yet.

  Half precision is taken only where a network has no other file.

  Args:
    name: owner/model.
    stems: names of the networks' files without suffix, by component.
  Raises:
    WeightsError: it cannot be had.
  """
  folder = _snapshot(
      name,
      [
          "model_index.json",
          "scheduler/scheduler_config.json",
          *(f"tokenizer/{file}" for file in text.FILES),
          *(f"{part}/config.json" for part in stems),
          *_files(stems.items(), ""),
      ],
  )
  halves = [
      (part, stem)
      for part, stem in stems.items()
      if not any((folder / part).glob(f"{stem}.safetensors*"))
  ]
  if halves:
    folder = _snapshot(name, _files(halves, ".fp16"))
  return folder


def tokenizer() -> pathlib.Path:
  """Folder of CLIP's tokenizer, downloaded if it is not there yet.

  Raises:
    WeightsError: it cannot be had.
  """
  return _snapshot(CLIP, list(text.FILES))


def _files(
    stems: Iterable[tuple[str, str]], variant: str
) -> list[str]:
  """The files that tensors.read_component may open."""
  return [
      f"{part}/{name}"
      for part, stem in stems
      for name in (
          f"{stem}{variant}.safetensors",
          f"{stem}{variant}-*-of-*.safetensors",
          f"{stem}.safetensors.index{variant}.json",
      )
  ]


def _snapshot(name: str, files: list[str]) -> pathlib.Path:
  import huggingface_hub  # pylint: disable=g-import-not-at-top

  try:
    return pathlib.Path(
        huggingface_hub.snapshot_download(name, allow_patterns=files)
    )
  except Exception as error:  # Of HTTP, the hub or the disk: no common base.
    reason = str(error).strip().partition("\n")[0]
    raise tensors.WeightsError(
        f"{name}: not a file or folder here, and the Hugging Face hub does not"
        f" give it ({type(error).__name__}: {reason}). Check the name and the"
        f" network; or run `hf download {name} --local-dir FOLDER` where there"
        " is one, and give that folder."
    ) from error
