"""Model folders: written, read, and refused when something is wrong."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax.diffusion import model_folder
from dreamjax.diffusion import schedule
from dreamjax.diffusion import tensors
from dreamjax.diffusion import text
from dreamjax.diffusion import weights


def edit(path, **changes):
  values = json.loads(path.read_text()) | changes
  path.write_text(json.dumps(values))


def test_a_folder_comes_back_as_it_was(pipeline, folder):
  loaded = weights.load(folder)
  assert loaded.model == pipeline.model
  assert hash(loaded.model) == hash(pipeline.model)
  assert loaded.schedule.config == pipeline.schedule.config
  jax.tree.map(
      np.testing.assert_array_equal, loaded.params, pipeline.params
  )
  np.testing.assert_array_equal(
      loaded.tokenizer(["a red mug"]), pipeline.tokenizer(["a red mug"])
  )


def test_half_precision_is_stored_on_request(pipeline, folder):
  whole = weights.load(folder)
  model_folder.save(folder, pipeline, np.float16)
  half = weights.load(folder)
  # float16 keeps 11 bits; values below 6e-5 lose some of them.
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-4, atol=1e-7),
      half.params,
      whole.params,
  )
  stored = tensors.read(folder / "unet" / "diffusion_pytorch_model.safetensors")
  assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}


def test_a_loaded_folder_can_be_saved_onto_itself(folder):
  model_folder.save(folder, weights.load(folder))
  weights.load(folder)


def test_a_model_in_bfloat16_holds_its_large_parameters_so(folder):
  loaded = weights.load(folder, "bfloat16")
  assert loaded.model.dtype == jnp.bfloat16
  assert loaded.params["unet"]["conv_in"]["kernel"].dtype == jnp.bfloat16
  assert loaded.params["unet"]["conv_in"]["bias"].dtype == jnp.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shapes_are_known_without_weights(folder, dtype):
  loaded = weights.load(folder, dtype)
  for path in folder.rglob("*.safetensors"):
    path.unlink()
  model, noise = weights.read_model(folder, dtype)
  assert model == loaded.model
  assert noise.config == loaded.schedule.config
  described = lambda leaf: (leaf.shape, leaf.dtype)
  assert jax.tree.map(described, weights.shapes(model)) == jax.tree.map(
      described, loaded.params
  )


def test_a_parameter_that_overflows_half_precision_is_refused(
    pipeline, tmp_path
):
  params = jax.tree.map(lambda x: x, pipeline.params)
  params["unet"]["conv_in"]["bias"] = jnp.full((32,), 1e6)
  with pytest.raises(ValueError, match="unet: conv_in.bias is not finite"):
    model_folder.save(tmp_path, pipeline._replace(params=params), np.float16)
  assert not (tmp_path / "model_index.json").exists()


def test_loading_needs_no_pytorch(folder):
  root = pathlib.Path(weights.__file__).parents[2]
  code = (
      "import sys; sys.modules['torch'] = None;"
      "from dreamjax.diffusion import weights;"
      f"weights.load({str(folder)!r})"
  )
  subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def damage_nothing_there(folder):
  return folder / "nowhere"


def damage_no_index(folder):
  (folder / "model_index.json").unlink()


def damage_another_family(folder):
  edit(folder / "model_index.json", _class_name="StableDiffusionXLPipeline")


def damage_another_part(folder):
  edit(folder / "model_index.json", unet=["diffusers", "UNet3DConditionModel"])


def damage_no_config(folder):
  (folder / "vae" / "config.json").unlink()


def damage_unknown_feature(folder):
  edit(folder / "unet" / "config.json", class_embed_type="timestep")


def damage_config_type(folder):
  edit(folder / "unet" / "config.json", block_out_channels=["a", "b"])


def damage_inpainting(folder):
  edit(folder / "unet" / "config.json", in_channels=9)


def damage_another_text_tower(folder):
  edit(folder / "unet" / "config.json", cross_attention_dim=64)


def damage_no_weights(folder):
  (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()


def damage_pickle_only(folder):
  path = folder / "text_encoder" / "model.safetensors"
  path.rename(path.with_name("pytorch_model.bin"))


def damage_cut_short(folder):
  path = folder / "vae" / "diffusion_pytorch_model.safetensors"
  path.write_bytes(path.read_bytes()[:-100])


def damage_wider_config(folder):
  edit(folder / "text_encoder" / "config.json", intermediate_size=128)


def damage_deeper_config(folder):
  edit(folder / "text_encoder" / "config.json", num_hidden_layers=3)


def damage_shallower_config(folder):
  edit(folder / "text_encoder" / "config.json", num_hidden_layers=1)


def damage_small_vocabulary(folder):
  edit(folder / "text_encoder" / "config.json", vocab_size=13)


def damage_no_tokenizer(folder):
  (folder / "tokenizer" / "vocab.json").unlink()
  (folder / "tokenizer" / "merges.txt").unlink()


def damage_tokenizer(folder):
  (folder / "tokenizer" / "vocab.json").write_text("[1")


def damage_schedule(folder):
  edit(
      folder / "scheduler" / "scheduler_config.json", prediction_type="sample"
  )


def damage_file_as_folder(folder):
  (folder / "model.ckpt").write_bytes(b"")
  return folder / "model.ckpt"


@pytest.mark.parametrize(
    "damage, message",
    [
        (damage_nothing_there, "not a folder; want a Stable Diffusion"),
        (damage_no_index, "no model_index.json; want"),
        (damage_another_family, "a StableDiffusionXLPipeline; want"),
        (damage_another_part, "unet is .*UNet3D.*want .*UNet2DCondition"),
        (damage_no_config, "vae/config.json: No such file"),
        (damage_unknown_feature, "class_embed_type is 'timestep'"),
        (damage_config_type, "model"),
        (damage_inpainting, "in_channels is 9 .* inpainting"),
        (damage_another_text_tower, "cross_attention_dim is 64 .* have 32"),
        (damage_no_weights, "no diffusion_pytorch_model.safetensors there"),
        (damage_pickle_only, "pytorch_model.bin: a pickle"),
        (damage_cut_short, "span|past|ends at byte"),
        (damage_wider_config, "fc1.bias is .64,., the config wants .128,."),
        (damage_deeper_config, "tensors are missing"),
        (damage_shallower_config, "tensors are unknown"),
        (damage_small_vocabulary, "tokenizer has 14 ids, the text encoder 13"),
        (damage_no_tokenizer, "no tokenizer there"),
        (damage_tokenizer, "not a CLIP tokenizer"),
        (damage_schedule, "prediction_type is 'sample'"),
        (damage_file_as_folder, "model.ckpt: a pickle"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_folder_is_one_clear_error(damage, message, folder):
  target = damage(folder) or folder
  with pytest.raises(tensors.WeightsError, match=message):
    weights.load(target)


def test_prediction_and_schedule_come_from_the_folder(pipeline, folder):
  config = schedule.ScheduleConfig(prediction_type="epsilon", beta_end=0.02)
  model_folder.save(folder, pipeline._replace(schedule=schedule.make(config)))
  assert weights.load(folder).schedule.config == config


def test_a_tokenizer_without_end_token_is_not_written(tmp_path):
  with pytest.raises(ValueError, match="endoftext"):
    text.write(tmp_path, {"<|startoftext|>": 0}, (), 8)
