"""Models by their names on the hub, which no test asks over a network."""

import pathlib
import shutil

import huggingface_hub
from huggingface_hub import constants
import pytest

from dreamjax.diffusion import hub
from dreamjax.diffusion import tensors
from dreamjax.diffusion import text
from dreamjax.diffusion import weights


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """The folder of downloads; nothing is asked over the network."""
  place = tmp_path / "cache"
  place.mkdir()
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place))
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  return place


def put(cache, name, folder):
  """Lays a folder into the cache, as a download does."""
  place = cache / f"models--{name.replace('/', '--')}"
  (place / "refs").mkdir(parents=True)
  commit = "0" * 40
  (place / "refs" / "main").write_text(commit)
  return shutil.copytree(folder, place / "snapshots" / commit)


def test_a_downloaded_model_is_opened_by_its_name(cache, folder, pipeline):
  place = put(cache, "owner/model-1.5", folder)
  assert weights.locate("owner/model-1.5") == (place,)
  assert weights.load("owner/model-1.5").model == pipeline.model


def test_clips_tokenizer_is_found(cache, tokenizer_folder):
  place = put(cache, "openai/clip-vit-large-patch14", tokenizer_folder)
  assert hub.tokenizer() == place
  assert text.Tokenizer(place, 8).length == 8


@pytest.mark.parametrize("name", ["owner/model", "openai/clip"])
def test_what_cannot_be_had_is_one_clear_error(cache, name):
  with pytest.raises(
      tensors.WeightsError,
      match=f"^{name}: not a file or folder here.*hf download {name}",
  ) as error:
    weights.load(name)
  assert "\n" not in str(error.value)


def refuse(*_, **__):
  raise AssertionError("The hub was asked.")


@pytest.mark.parametrize(
    "name", ["/a/b", "a", "a/b/c", "../b", "a/b.safetensors", "a/b.ckpt", "a/"]
)
def test_only_names_are_looked_up(name, monkeypatch):
  monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
  with pytest.raises(tensors.WeightsError, match="not a folder|a pickle"):
    weights.load(name)


def test_a_path_is_preferred_to_a_name(folder, tmp_path, monkeypatch):
  monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
  monkeypatch.chdir(tmp_path)
  (tmp_path / "owner").mkdir()
  folder.rename(tmp_path / "owner" / "model")
  assert weights.locate("owner/model") == (pathlib.Path("owner/model"),)
  weights.load("owner/model")


FILES = (
    "README.md",
    "model_index.json",
    "v1-5-pruned.safetensors",
    "v1-5-pruned.ckpt",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "unet/diffusion_pytorch_model-00001-of-00001.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "safety_checker/model.safetensors",
)
WANTED = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "unet/diffusion_pytorch_model-00001-of-00001.safetensors",
)


def test_only_what_is_read_is_downloaded(tmp_path, monkeypatch):
  def download(name, allow_patterns):
    assert name == "owner/model"
    for file in huggingface_hub.utils.filter_repo_objects(
        FILES, allow_patterns=allow_patterns
    ):
      (tmp_path / file).parent.mkdir(exist_ok=True)
      (tmp_path / file).touch()
    return str(tmp_path)

  monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
  assert weights.locate("owner/model") == (tmp_path,)
  there = [path for path in tmp_path.rglob("*") if path.is_file()]
  assert {str(path.relative_to(tmp_path)) for path in there} == set(WANTED)
