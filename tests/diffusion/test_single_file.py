"""Whole models in one file, as the original code stores them."""

import dataclasses
import functools
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest

from dreamjax.diffusion import clip
from dreamjax.diffusion import hub
from dreamjax.diffusion import keys
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import model_folder
from dreamjax.diffusion import single_file
from dreamjax.diffusion import tensors
from dreamjax.diffusion import unet
from dreamjax.diffusion import vae
from dreamjax.diffusion import weights


SHAPES = functools.cache(model_lib.Model.shapes)


@pytest.fixture(autouse=True)
def evaluate_each_shape_once(monkeypatch):
  monkeypatch.setattr(model_lib.Model, "shapes", SHAPES)


def write(folder, arrays, tokenizer_folder):
  """A file with a tokenizer beside it."""
  shutil.copytree(tokenizer_folder, folder / "tokenizer", dirs_exist_ok=True)
  tensors.write(folder / "model.safetensors", arrays)
  return folder / "model.safetensors"


def assert_equal(params, other):
  jax.tree.map(np.testing.assert_array_equal, params, other)


def is_second(pipeline):
  return pipeline.model.text_encoder.hidden_act == "gelu"


def test_a_file_is_the_model_that_was_stored(
    file_model, file_arrays, tokenizer_folder, tmp_path
):
  path = write(tmp_path, file_arrays, tokenizer_folder)
  loaded = weights.load(path, prediction="epsilon")
  assert loaded.model == file_model.model
  assert loaded.schedule.config == file_model.schedule.config
  assert_equal(loaded.params, file_model.params)
  padding = 0 if is_second(file_model) else file_model.tokenizer.end
  assert loaded.tokenizer(["a"])[0, 3:].tolist() == [padding] * 5


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_read(
    dtype, file_model, file_arrays, tokenizer_folder, tmp_path
):
  half = {name: array.astype(dtype) for name, array in file_arrays.items()}
  path = write(tmp_path, half, tokenizer_folder)
  loaded = weights.load(path, prediction="epsilon")
  assert_equal(
      loaded.params,
      jax.tree.map(
          lambda x: np.asarray(x).astype(dtype).astype(np.float32),
          file_model.params,
      ),
  )


EXTRA = (
    "model_ema.decay", "model_ema.num_updates",
    "model_ema.diffusion_modelinput_blocks00weight", "betas", "alphas_cumprod",
    "alphas_cumprod_prev", "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
    "posterior_variance", "posterior_log_variance_clipped",
    "posterior_mean_coef1", "posterior_mean_coef2", "logvar", "lvlb_weights",
    "first_stage_model.loss.logvar",
    "first_stage_model.loss.discriminator.main.0.weight",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "cond_stage_model.model.text_projection",
    "cond_stage_model.model.logit_scale", "cond_stage_model.model.attn_mask",
    "cond_stage_model.model.transformer.resblocks.23.attn.in_proj_weight",
)


def test_what_no_image_depends_on_is_left_out(
    file_model, file_arrays, tokenizer_folder, tmp_path
):
  extra = {name: np.zeros(2, np.float32) for name in EXTRA}
  path = write(tmp_path, file_arrays | extra, tokenizer_folder)
  loaded = weights.load(path, prediction="epsilon")
  assert_equal(loaded.params, file_model.params)


def test_what_is_predicted_is_asked_where_it_is_not_known(
    file_model, file_arrays, tokenizer_folder, tmp_path
):
  path = write(tmp_path, file_arrays, tokenizer_folder)
  if is_second(file_model):
    with pytest.raises(tensors.WeightsError, match="2.x.*--prediction=epsilon"):
      weights.load(path)
  else:
    assert weights.load(path).schedule.prediction == "epsilon"
  loaded = weights.load(path, prediction="v_prediction")
  assert loaded.schedule.prediction == "v_prediction"
  assert loaded.model.unet.sample_size == (96 if is_second(file_model) else 64)
  with pytest.raises(tensors.WeightsError, match="prediction_type is 'x'"):
    weights.load(path, prediction="x")


def test_a_file_tells_its_networks_as_it_is_loaded(
    file_model, file_arrays, tokenizer_folder, tmp_path
):
  path = write(tmp_path, file_arrays, tokenizer_folder)
  prediction = "v_prediction" if is_second(file_model) else None
  loaded = weights.load(path, "bfloat16", prediction)
  model, noise = weights.read_model(path, "bfloat16", prediction)
  assert model == loaded.model
  assert noise.config == loaded.schedule.config


def test_a_folder_says_itself_what_it_predicts(folder):
  for read in (weights.load, weights.read_model):
    with pytest.raises(tensors.WeightsError, match="the folder says itself"):
      read(folder, prediction="epsilon")


def test_a_loaded_file_becomes_a_folder(
    file_model, file_arrays, tokenizer_folder, tmp_path
):
  path = write(tmp_path, file_arrays, tokenizer_folder)
  loaded = weights.load(path, prediction="epsilon")
  model_folder.save(tmp_path / "folder", loaded)
  again = weights.load(tmp_path / "folder")
  assert again.model == loaded.model
  assert_equal(again.params, file_model.params)
  for words in ("a red mug", "a"):
    np.testing.assert_array_equal(
        again.tokenizer([words]), loaded.tokenizer([words])
    )


def test_without_a_tokenizer_the_error_says_where_to_put_one(
    file_arrays, tmp_path, monkeypatch
):
  def refuse():
    raise tensors.WeightsError("no network")

  monkeypatch.setattr(hub, "tokenizer", refuse)
  tensors.write(tmp_path / "m.safetensors", file_arrays)
  with pytest.raises(
      tensors.WeightsError, match="no folder .*tokenizer. Put.*no network"
  ):
    weights.load(tmp_path / "m.safetensors")


def test_the_hubs_tokenizer_is_taken_where_none_is_beside(
    file_arrays, tmp_path, monkeypatch, tokenizer_folder
):
  monkeypatch.setattr(hub, "tokenizer", lambda: tokenizer_folder)
  path = tmp_path / "m.safetensors"
  tensors.write(path, file_arrays)
  assert weights.locate(path) == (path, tokenizer_folder)


UNET = "model.diffusion_model."


def damage_sdxl(arrays):
  arrays["conditioner.embedders.0.transformer.a.weight"] = np.zeros(1, "f4")


def damage_unknown_part(arrays):
  arrays["control_model.a.weight"] = np.zeros(1, "f4")


def damage_unknown_layer(arrays):
  arrays[UNET + "input_blocks.0.1.weight"] = np.zeros(1, "f4")


def damage_foreign_name(arrays):
  arrays[UNET + "conv_in.weight"] = np.zeros(1, "f4")


def damage_no_unet(arrays):
  for name in [name for name in arrays if name.startswith(UNET)]:
    del arrays[name]


def damage_no_vae(arrays):
  for name in [name for name in arrays if name.startswith("first_stage")]:
    del arrays[name]


def damage_no_text(arrays):
  for name in [name for name in arrays if name.startswith("cond_stage")]:
    del arrays[name]


def damage_both_texts(arrays):
  for name in ("transformer", "model"):
    arrays[f"cond_stage_model.{name}.a"] = np.zeros(1, "f4")


def damage_missing_weight(arrays):
  del arrays[UNET + "input_blocks.0.0.weight"]


def damage_missing_bias(arrays):
  del arrays[UNET + "out.2.bias"]


def damage_missing_middle(arrays):
  del arrays[UNET + "middle_block.1.proj_in.weight"]


def damage_shape(arrays):
  arrays[UNET + "out.2.bias"] = np.zeros(5, "f4")


def damage_scalar(arrays):
  arrays[UNET + "input_blocks.0.0.weight"] = np.zeros((), "f4")


def damage_empty(arrays):
  arrays[UNET + "input_blocks.0.0.weight"] = np.zeros((0, 10**9), "f4")


def damage_nan(arrays):
  name = UNET + "middle_block.1.norm.weight"
  arrays[name] = np.full_like(arrays[name], np.nan)


def damage_integers(arrays):
  name = UNET + "middle_block.1.norm.weight"
  arrays[name] = arrays[name].astype(np.int32)


def damage_inpainting(arrays):
  name = UNET + "input_blocks.0.0.weight"
  arrays[name] = np.concatenate([arrays[name]] * 3, 1)[:, :9]


def damage_everything(arrays):
  arrays.clear()


@pytest.mark.parametrize(
    "damage, message",
    [
        (damage_sdxl, "a Stable Diffusion XL; want a whole"),
        (damage_unknown_part, "1 tensors are unknown, first 'control_model"),
        (damage_unknown_layer, "'input_blocks.0.1.weight' is unknown"),
        (damage_foreign_name, "'conv_in.weight' is unknown"),
        (damage_no_unet, "no tensors model.diffusion_model"),
        (damage_no_vae, "no tensors first_stage_model"),
        (damage_no_text, "want either cond_stage_model.transformer"),
        (damage_both_texts, "want either cond_stage_model.transformer"),
        (damage_missing_weight, "conv_in.weight is missing"),
        (damage_missing_bias, "1 tensors are missing, first 'conv_out.bias'"),
        (damage_missing_middle, "proj_in.weight is missing"),
        (damage_shape, r"conv_out.bias is \(5,\), the config wants \(4,\)"),
        (damage_scalar, "conv_in.weight is missing or no matrix"),
        (damage_empty, r"input_blocks.0.0.weight is empty, \(0, 10000"),
        (damage_nan, "attentions.0.norm.weight holds NaN"),
        (damage_integers, "attentions.0.norm.weight is int32"),
        (damage_inpainting, "in_channels is 9 .* inpainting"),
        (damage_everything, "no tensors model.diffusion_model"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("file_model", ["1.x"], indirect=True)
def test_a_damaged_file_is_one_clear_error(
    damage, message, file_arrays, tokenizer_folder, tmp_path
):
  damage(file_arrays)
  path = write(tmp_path, file_arrays, tokenizer_folder)
  with pytest.raises(tensors.WeightsError, match=message):
    weights.load(path)


def test_no_lost_or_changed_tensor_ends_in_another_error(
    file_arrays, tokenizer_folder, tmp_path, monkeypatch
):
  path = write(tmp_path, file_arrays, tokenizer_folder)
  random = np.random.default_rng(0)
  names = sorted(file_arrays)
  shapes = [(), (1,), (3,), (2, 0), (7, 5), (1, 1, 1, 1), (64, 10**12, 1, 0)]
  for _ in range(40):
    arrays = dict(file_arrays)
    for name in random.choice(names, 2):
      arrays.pop(name, None)
      if random.integers(2):
        shape = shapes[random.integers(len(shapes))]
        name = name if random.integers(2) else name.replace("0", "7")
        arrays[name] = np.broadcast_to(np.float32(1), shape)
    monkeypatch.setattr(tensors, "read", lambda path, arrays=arrays: arrays)
    try:
      weights.load(path, prediction="epsilon")
    except tensors.WeightsError:
      pass


def full_size(is_second):
  """Stable Diffusion 1.5 and 2.1 as their folders' configs have them."""
  width, heads = (1024, (5, 10, 20, 20)) if is_second else (768, 8)
  return model_lib.Model(
      clip.CLIPConfig(
          hidden_size=width,
          intermediate_size=4 * width,
          num_hidden_layers=23 if is_second else 12,
          num_attention_heads=16 if is_second else 12,
          hidden_act="gelu" if is_second else "quick_gelu",
      ),
      vae.VAEConfig(
          sample_size=768 if is_second else 512,
          block_out_channels=(128, 256, 512, 512),
          layers_per_block=2,
      ),
      unet.UNetConfig(
          sample_size=96 if is_second else 64,
          attention_head_dim=heads,
          cross_attention_dim=width,
          use_linear_projection=is_second,
      ),
  )


@pytest.mark.parametrize("second", [False, True], ids=["1.5", "2.1"])
def test_the_shapes_of_the_full_size_tell_the_config(
    second, to_original, tmp_path, monkeypatch
):
  model = full_size(second)
  arrays = {}
  for part, shapes in model.shapes().items():
    arrays[part] = {}
    for path, leaf in keys.flatten(shapes).items():
      shape = leaf.shape
      if path[-1] == "kernel":
        shape = shape[::-1] if len(shape) == 2 else (
            shape[3], shape[2], *shape[:2]
        )
      arrays[part][keys.checkpoint_key(path)] = np.broadcast_to(
          np.float16(0), shape
      )
  original = to_original(
      arrays,
      dataclasses.asdict(model.unet),
      dataclasses.asdict(model.vae),
      second,
  )
  assert UNET + "output_blocks.11.0.skip_connection.weight" in original
  monkeypatch.setattr(tensors, "read", lambda path: original)
  parts = single_file.read(tmp_path, tmp_path, "v_prediction")
  read = model_lib.Model(parts.text_encoder, parts.vae, parts.unet)
  assert read == model
  for part, found in parts.arrays.items():
    assert found.keys() == arrays[part].keys()


@pytest.mark.parity
def test_a_file_is_read_as_diffusers_reads_it(
    torch_pipeline, torch_file, torch_folder, assert_same_answers
):
  diffusers = pytest.importorskip("diffusers")
  pipe, is_second = torch_pipeline
  read = diffusers.StableDiffusionPipeline.from_single_file(
      str(torch_file), config=str(torch_folder), local_files_only=True
  )
  for part in model_lib.COMPONENTS:  # What the file holds is in their order.
    want = getattr(pipe, part).state_dict()
    got = getattr(read, part).state_dict()
    assert got.keys() == want.keys()
    for name, value in got.items():
      np.testing.assert_array_equal(value.numpy(), want[name].numpy())
  prediction = pipe.scheduler.config.prediction_type
  ours = weights.load(torch_file, prediction=prediction)
  from_folder = weights.load(torch_folder)
  assert_equal(ours.params, from_folder.params)
  assert ours.schedule.config == from_folder.schedule.config
  assert ours.model.text_encoder == from_folder.model.text_encoder
  assert ours.model.unet.heads == from_folder.model.unet.heads
  assert_same_answers(read, ours, "a red mug")


@pytest.mark.parity
@pytest.mark.parametrize("torch_pipeline", ["2.x"], indirect=True)
def test_the_last_but_one_layer_of_open_clip_speaks(torch_file, to_original):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  torch.manual_seed(1)
  tower = transformers.CLIPTextModel(
      transformers.CLIPTextConfig(
          vocab_size=16,
          hidden_size=128,
          intermediate_size=64,
          num_hidden_layers=24,
          num_attention_heads=2,
          max_position_embeddings=8,
          hidden_act="gelu",
          bos_token_id=0,
          eos_token_id=1,
      )
  ).eval()
  arrays = {
      name.removeprefix("text_model."): value.numpy()
      for name, value in tower.state_dict().items()
      if not name.endswith("position_ids")
  }
  original = {
      name: array
      for name, array in tensors.read(torch_file).items()
      if not name.startswith("cond_stage_model.")
  } | to_original(
      {"unet": {}, "vae": {}, "text_encoder": arrays},
      {"down_block_types": [], "layers_per_block": 0},
      {"block_out_channels": [], "layers_per_block": 0},
      True,
  )
  path = torch_file.with_name("other.safetensors")
  tensors.write(path, original)
  model, params, _, _ = weights.load(path, prediction="epsilon")
  token = np.array([[0, 13, 11, 1, 0, 0, 0, 0]], np.int32)
  with torch.no_grad():
    states = tower(torch.tensor(token).long(), output_hidden_states=True)
    norm = getattr(tower, "text_model", tower).final_layer_norm
    want = norm(states.hidden_states[-2]).numpy()
  got = jax.jit(model.encode_text)(params, token)
  np.testing.assert_allclose(got, want, atol=1e-4)
