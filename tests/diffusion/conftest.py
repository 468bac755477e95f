"""A tiny Stable Diffusion whose parameters no compiled initialiser made."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax.diffusion import clip
from dreamjax.diffusion import keys
from dreamjax.diffusion import model as model_lib
from dreamjax.diffusion import model_folder
from dreamjax.diffusion import schedule
from dreamjax.diffusion import tensors
from dreamjax.diffusion import text
from dreamjax.diffusion import unet
from dreamjax.diffusion import vae

VOCABULARY = {
    token: index
    for index, token in enumerate((
        "<|startoftext|>", "<|endoftext|>", "a</w>", ",</w>", "m", "u", "g</w>",
        "r", "e", "d</w>", "mu", "mug</w>", "re", "red</w>",
    ))
}
MERGES = (("m", "u"), ("mu", "g</w>"), ("r", "e"), ("re", "d</w>"))

MODEL = model_lib.Model(
    clip.CLIPConfig(
        vocab_size=16,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
    ),
    vae.VAEConfig(
        sample_size=16, block_out_channels=(16, 32), norm_num_groups=8
    ),
    unet.UNetConfig(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        attention_head_dim=(1, 2),
        cross_attention_dim=32,
        use_linear_projection=True,
        norm_num_groups=8,
    ),
)


def random_params(shapes):
  """Weights of unit gain, norms near one, so that signals keep their size."""
  random = np.random.default_rng(0)

  def draw(path, shape):
    fan_in = np.prod(shape.shape[:-1]) if len(shape.shape) > 1 else 100.0
    value = random.standard_normal(shape.shape) / np.sqrt(fan_in)
    return jnp.asarray(value + (path[-1].key == "scale"), jnp.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="session")
def make_tokenizer(tmp_path_factory):
  """A function from length to the folder of a tokenizer."""

  def make(length):
    folder = tmp_path_factory.mktemp("tokenizer")
    text.write(folder, VOCABULARY, MERGES, length)
    return folder

  return make


@pytest.fixture(scope="session")
def tokenizer_folder(make_tokenizer):
  return make_tokenizer(8)


@pytest.fixture(scope="session")
def pipeline(tokenizer_folder):
  return model_lib.StableDiffusion(
      MODEL,
      random_params(MODEL.shapes()),
      schedule.make(schedule.ScheduleConfig(prediction_type="v_prediction")),
      text.Tokenizer(tokenizer_folder, 8),
  )


@pytest.fixture
def folder(pipeline, tmp_path):
  """A model folder that the test may damage."""
  model_folder.save(tmp_path / "model", pipeline)
  return tmp_path / "model"


UNET_RESNET = (
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
VAE_ATTENTION = (
    ("norm", "group_norm"),
    ("q", "to_q"),
    ("k", "to_k"),
    ("v", "to_v"),
    ("proj_out", "to_out.0"),
)
OPEN_CLIP = (
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("attn.out_proj", "self_attn.out_proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
)


def unet_modules(config):
  """(original name, diffusers' name), in the order the modules are made in."""
  attends = ["Cross" in kind for kind in config["down_block_types"]]
  levels, layers = len(attends), config["layers_per_block"]

  def block(old, new, index, attend):
    for one, other in UNET_RESNET:
      yield f"{old}.0.{one}", f"{new}.resnets.{index}.{other}"
    if attend:
      yield f"{old}.1", f"{new}.attentions.{index}"

  yield from (
      ("time_embed.0", "time_embedding.linear_1"),
      ("time_embed.2", "time_embedding.linear_2"),
      ("input_blocks.0.0", "conv_in"),
  )
  n = 1
  for level in range(levels):
    new = f"down_blocks.{level}"
    for j in range(layers):
      yield from block(f"input_blocks.{n}", new, j, attends[level])
      n += 1
    if level < levels - 1:
      yield f"input_blocks.{n}.0.op", f"{new}.downsamplers.0.conv"
      n += 1
  yield "middle_block.1", "mid_block.attentions.0"
  for one, other in UNET_RESNET:
    yield f"middle_block.0.{one}", f"mid_block.resnets.0.{other}"
    yield f"middle_block.2.{one}", f"mid_block.resnets.1.{other}"
  n = 0
  for level in range(levels):
    new, attend = f"up_blocks.{level}", attends[levels - 1 - level]
    for j in range(layers + 1):
      yield from block(f"output_blocks.{n}", new, j, attend)
      if j == layers and level < levels - 1:
        yield (
            f"output_blocks.{n}.{1 + attend}.conv",
            f"{new}.upsamplers.0.conv",
        )
      n += 1
  yield from (("out.0", "conv_norm_out"), ("out.2", "conv_out"))


def vae_modules(config):
  """(original name, diffusers' name) of the autoencoder's modules."""
  levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
  rename = (("nin_shortcut", "conv_shortcut"),) + tuple(
      (name, name) for name in ("norm1", "conv1", "norm2", "conv2")
  )
  yield from ((name, name) for name in ("quant_conv", "post_quant_conv"))
  for half, side, more in (("encoder", "down", 0), ("decoder", "up", 1)):
    yield f"{half}.conv_in", f"{half}.conv_in"
    yield f"{half}.norm_out", f"{half}.conv_norm_out"
    yield f"{half}.conv_out", f"{half}.conv_out"
    for one, other in VAE_ATTENTION:
      yield f"{half}.mid.attn_1.{one}", f"{half}.mid_block.attentions.0.{other}"
    for one, other in rename:
      for j in range(2):
        yield (
            f"{half}.mid.block_{j + 1}.{one}",
            f"{half}.mid_block.resnets.{j}.{other}",
        )
    for i in range(levels):
      old = f"{half}.{side}.{i if side == 'down' else levels - 1 - i}"
      new = f"{half}.{side}_blocks.{i}"
      if i < levels - 1:
        yield f"{old}.{side}sample.conv", f"{new}.{side}samplers.0.conv"
      for j in range(layers + more):
        for one, other in rename:
          yield f"{old}.block.{j}.{one}", f"{new}.resnets.{j}.{other}"


def open_clip_arrays(arrays):
  """A text tower under OpenCLIP's names."""
  end = "embeddings.position_embedding.weight"
  yield "positional_embedding", arrays[end]
  yield (
      "token_embedding.weight", arrays["embeddings.token_embedding.weight"]
  )
  for leaf in ("weight", "bias"):
    yield f"ln_final.{leaf}", arrays[f"final_layer_norm.{leaf}"]
    i = 0
    while (new := f"encoder.layers.{i}") + ".mlp.fc1.weight" in arrays:
      old = f"transformer.resblocks.{i}"
      yield f"{old}.attn.in_proj_{leaf}", np.concatenate(
          [arrays[f"{new}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
      )
      for one, other in OPEN_CLIP:
        yield f"{old}.{one}.{leaf}", arrays[f"{new}.{other}.{leaf}"]
      i += 1


def to_original(arrays, unet_config, vae_config, is_second):
  """A model's tensors under the names of the original code.

  Args:
    arrays: by component, tensors under diffusers' names.
    unet_config: dict, its JSON.
    vae_config: dict, its JSON.
    is_second: whether the text tower is OpenCLIP's.
  """
  result = {}

  def move(prefix, part, modules):
    left = dict(arrays[part])
    for old, new in modules:
      for key in [key for key in left if key.startswith(new + ".")]:
        name = f"{prefix}.{old}{key.removeprefix(new)}"
        value = left.pop(key)
        if ".attn_1." in name and value.ndim == 2:
          value = value[:, :, None, None]
        result[name] = value
    assert not left, min(left)

  move("model.diffusion_model", "unet", unet_modules(unet_config))
  move("first_stage_model", "vae", vae_modules(vae_config))
  tower = arrays["text_encoder"]
  if is_second:
    for name, array in open_clip_arrays(tower):
      result[f"cond_stage_model.model.{name}"] = array
  else:
    for name, array in tower.items():
      result[f"cond_stage_model.transformer.text_model.{name}"] = array
  return result


@pytest.fixture(scope="session", name="to_original")
def to_original_fixture():
  return to_original


FILE_VAE = vae.VAEConfig(sample_size=128, block_out_channels=(32, 64))
FILE_MODELS = {
    kind: model_lib.Model(
        clip.CLIPConfig(
            vocab_size=16,
            hidden_size=128,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=8,
            hidden_act=activation,
        ),
        FILE_VAE,
        unet.UNetConfig(
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(64, 128),
            layers_per_block=1,
            attention_head_dim=heads,
            cross_attention_dim=128,
            use_linear_projection=kind == "2.x",
        ),
    )
    for kind, activation, heads in (
        ("1.x", "quick_gelu", 8), ("2.x", "gelu", (1, 2))
    )
}
"""Shaped by the rules that a file without config is read by."""


@pytest.fixture(scope="session", params=FILE_MODELS)
def file_model(request, tokenizer_folder):
  """A model that a single file can hold."""
  model = FILE_MODELS[request.param]
  return model_lib.StableDiffusion(
      model,
      random_params(model.shapes()),
      schedule.make(schedule.ScheduleConfig()),
      text.Tokenizer(tokenizer_folder, 8),
  )


@pytest.fixture
def file_arrays(file_model):
  """Its tensors under the original names."""
  arrays = {
      part: keys.to_checkpoint(params)
      for part, params in file_model.params.items()
  }
  return to_original(
      arrays,
      dataclasses.asdict(file_model.model.unet),
      dataclasses.asdict(file_model.model.vae),
      file_model.model.text_encoder.hidden_act == "gelu",
  )


@pytest.fixture(scope="session", params=FILE_MODELS)
def torch_pipeline(request, make_tokenizer):
  """diffusers' own pipeline, shaped as a single file wants it, and its kind.

  2.x has 24 layers of text tower, of which diffusers keeps 23.
  """
  torch = pytest.importorskip("torch")
  diffusers = pytest.importorskip("diffusers")
  transformers = pytest.importorskip("transformers")
  is_second = request.param == "2.x"
  tower = transformers.CLIPTextConfig(
      vocab_size=16,
      hidden_size=128,
      intermediate_size=64,
      num_hidden_layers=23 if is_second else 2,
      num_attention_heads=2,
      max_position_embeddings=8,
      hidden_act="gelu" if is_second else "quick_gelu",
      bos_token_id=0,
      eos_token_id=1,
  )
  cross, plain = "CrossAttn{}Block2D", "{}Block2D"
  blocks = (cross, cross, plain)
  torch.manual_seed(0)
  parts = (
      diffusers.AutoencoderKL(
          block_out_channels=(32, 64),
          down_block_types=["DownEncoderBlock2D"] * 2,
          up_block_types=["UpDecoderBlock2D"] * 2,
          layers_per_block=2,
      ),
      transformers.CLIPTextModel(tower),
      diffusers.UNet2DConditionModel(
          sample_size=64,
          down_block_types=[block.format("Down") for block in blocks],
          up_block_types=[block.format("Up") for block in blocks[::-1]],
          block_out_channels=(64, 128, 128),
          attention_head_dim=(1, 2, 2) if is_second else 8,
          cross_attention_dim=128,
          use_linear_projection=is_second,
      ),
  )
  with torch.no_grad():  # Norms and biases too: they start at one and zero.
    for parameter in [x for part in parts for x in part.parameters()]:
      if parameter.ndim == 1:
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
  autoencoder, text_encoder, denoiser = (part.eval() for part in parts)
  pipe = diffusers.StableDiffusionPipeline(
      autoencoder,
      text_encoder,
      transformers.CLIPTokenizer.from_pretrained(make_tokenizer(8)),
      denoiser,
      diffusers.DDIMScheduler(
          beta_start=0.00085,
          beta_end=0.012,
          beta_schedule="scaled_linear",
          clip_sample=False,
          set_alpha_to_one=False,
          steps_offset=1,
          prediction_type="v_prediction" if is_second else "epsilon",
      ),
      safety_checker=None,
      feature_extractor=None,
      requires_safety_checker=False,
  )
  pipe.set_progress_bar_config(disable=True)
  return pipe, is_second


@pytest.fixture
def torch_folder(torch_pipeline, tmp_path):
  """The pipeline's folder, by diffusers itself."""
  torch_pipeline[0].save_pretrained(tmp_path / "model")
  return tmp_path / "model"


def torch_arrays(pipe):
  """Its tensors by component, under diffusers' names."""
  return {
      part: {
          name.removeprefix("text_model."): value.numpy()
          for name, value in getattr(pipe, part).state_dict().items()
          if not name.endswith("position_ids")
      }
      for part in model_lib.COMPONENTS
  }


@pytest.fixture
def torch_file(torch_pipeline, tokenizer_folder, tmp_path):
  """The same in one file, with a tokenizer beside it."""
  pipe, is_second = torch_pipeline
  arrays = to_original(
      torch_arrays(pipe), pipe.unet.config, pipe.vae.config, is_second
  )
  if is_second:
    for name, array in list(arrays.items()):
      if ".resblocks.22." in name:
        arrays[name.replace(".22.", ".23.")] = -array
  shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")
  tensors.write(tmp_path / "model.safetensors", arrays)
  return tmp_path / "model.safetensors"


@pytest.fixture(scope="session")
def draw_with_torch():
  """A function from pipeline, token ids i32[1, N] and noise to the answers."""
  torch = pytest.importorskip("torch")

  def draw(pipe, token, noise):
    with torch.no_grad():
      context = pipe.text_encoder(
          torch.tensor(np.asarray(token), dtype=torch.long)
      ).last_hidden_state
      noisy = torch.from_numpy(np.moveaxis(noise, -1, 1).copy())
      output = pipe.unet(noisy, torch.tensor([500]), context).sample
    return context.numpy(), np.moveaxis(output.numpy(), 1, -1)

  return draw


@pytest.fixture(scope="session")
def assert_same_answers(draw_with_torch):
  """A function that compares a PyTorch pipeline with one of ours."""

  def check(pipe, pipeline, words):
    noise = np.random.default_rng(0).standard_normal((1, 8, 8, 4), np.float32)
    token = pipeline.tokenizer([words])
    model, params = pipeline.model, pipeline.params
    context = jax.jit(model.encode_text)(params, token)
    output = jax.jit(model.denoise)(
        params, noise, np.array([500], np.int32), context
    )
    wanted = draw_with_torch(pipe, token, noise)
    for got, want in zip((context, output), wanted):
      # As in test_parity: float32 sums in another order.
      assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()

  return check
