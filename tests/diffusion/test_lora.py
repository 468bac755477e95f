"""LoRAs, merged into weights."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from dreamjax.diffusion import lora
from dreamjax.diffusion import tensors
from dreamjax.diffusion import weights

RANDOM = np.random.default_rng(0)


def normal(*shape):
  return RANDOM.standard_normal(shape, np.float32)


ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
LINEAR = f"{ATTENTION}.to_q.weight"
OUT = f"{ATTENTION}.to_out.0.weight"
PIXEL = "down_blocks.0.attentions.0.proj_in.weight"
CONV = "down_blocks.0.resnets.0.conv1.weight"
TEXT = "encoder.layers.0.self_attn.q_proj.weight"
ARRAYS = {
    "unet": {
        LINEAR: normal(6, 5),
        OUT: normal(5, 6),
        PIXEL: normal(6, 5, 1, 1),
        CONV: normal(6, 5, 3, 3),
        "conv_in.bias": normal(6),
    },
    "vae": {"a.weight": normal(2, 2)},
    "text_encoder": {TEXT: normal(6, 5)},
}
DOWN, UP = normal(2, 5), normal(6, 2)
TALL, WIDE = normal(5, 2), normal(2, 6)


def merge(tmp_path, arrays, scale=1.0, notes=None):
  path = tmp_path / "style.safetensors"
  safetensors.numpy.save_file(arrays, path, notes)
  return lora.merge(ARRAYS, path, scale)


def check(merged, part, name, change):
  """Only one weight has changed, by `change`."""
  for component, arrays in ARRAYS.items():
    assert merged[component].keys() == arrays.keys()
    for key, array in arrays.items():
      if (component, key) == (part, name):
        assert merged[component][key].dtype == np.float32
        # One rounding of sums of two products.
        np.testing.assert_allclose(
            merged[component][key] - array, change, atol=1e-6
        )
      else:
        assert merged[component][key] is array


NAMES = {
    "PEFT": ("unet.{}.to_q.lora_A.weight", "unet.{}.to_q.lora_B.weight"),
    "kohya": (
        "lora_unet_{_}_to_q.lora_down.weight",
        "lora_unet_{_}_to_q.lora_up.weight",
    ),
    "diffusers": (
        "unet.{}.to_q.lora.down.weight", "unet.{}.to_q.lora.up.weight"
    ),
    "old diffusers": (
        "unet.{}.processor.to_q_lora.down.weight",
        "unet.{}.processor.to_q_lora.up.weight",
    ),
    "oldest diffusers": (
        "{}.processor.to_q_lora.down.weight", "{}.processor.to_q_lora.up.weight"
    ),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_every_spelling_reaches_the_unet(names, tmp_path):
  name = lambda text: text.replace("{_}", ATTENTION.replace(".", "_")).format(
      ATTENTION
  )
  down, up = map(name, names)
  merged = merge(tmp_path, {down: DOWN, up: UP}, 0.5)
  check(merged, "unet", LINEAR, 0.5 * UP @ DOWN)


@pytest.mark.parametrize(
    "down, up",
    [
        ("text_encoder.text_model.{}.q_proj.lora_A.weight",
         "text_encoder.text_model.{}.q_proj.lora_B.weight"),
        ("text_encoder.{}.q_proj.lora_A.weight",
         "text_encoder.{}.q_proj.lora_B.weight"),
        ("text_encoder.text_model.{}.q_proj.lora_linear_layer.down.weight",
         "text_encoder.text_model.{}.q_proj.lora_linear_layer.up.weight"),
        ("text_encoder.text_model.{}.to_q_lora.down.weight",
         "text_encoder.text_model.{}.to_q_lora.up.weight"),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj"
         ".lora_down.weight",
         "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
         ".lora_up.weight"),
    ],
)
def test_every_spelling_reaches_the_text_tower(down, up, tmp_path):
  layer = "encoder.layers.0.self_attn"
  arrays = {down.format(layer): DOWN, up.format(layer): UP}
  check(merge(tmp_path, arrays), "text_encoder", TEXT, UP @ DOWN)


@pytest.mark.parametrize(
    "down, up",
    [
        (f"unet.{ATTENTION}.to_out.0.lora_A.weight",
         f"unet.{ATTENTION}.to_out.0.lora_B.weight"),
        (f"unet.{ATTENTION}.processor.to_out_lora.down.weight",
         f"unet.{ATTENTION}.processor.to_out_lora.up.weight"),
    ],
)
def test_the_output_projection_has_two_names(down, up, tmp_path):
  merged = merge(tmp_path, {down: WIDE, up: TALL})
  check(merged, "unet", OUT, TALL @ WIDE)


def kohya(name, down, up, **more):
  layer = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
  return {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up} | {
      f"{layer}.{key}": value for key, value in more.items()
  }


@pytest.mark.parametrize("alpha", [np.float32(3), np.full((1,), 3, np.float16)])
def test_alpha_over_rank_scales(alpha, tmp_path):
  merged = merge(tmp_path, kohya(LINEAR, DOWN, UP, alpha=np.array(alpha)))
  check(merged, "unet", LINEAR, 3 / 2 * UP @ DOWN)


def test_alpha_may_stand_in_the_notes(tmp_path):
  notes = {"unet.lora_alpha": 3, "unet.r": 2, "unet.use_dora": False}
  arrays = {
      f"unet.{ATTENTION}.to_q.lora_A.weight": DOWN,
      f"unet.{ATTENTION}.to_q.lora_B.weight": UP,
  }
  merged = merge(tmp_path, arrays, 1.0, {lora.NOTES: json.dumps(notes)})
  check(merged, "unet", LINEAR, 3 / 2 * UP @ DOWN)


@pytest.mark.parametrize("ends", [(), (1, 1)])
def test_a_convolution_of_one_pixel_is_a_matrix(ends, tmp_path):
  down, up = DOWN.reshape(2, 5, *ends), UP.reshape(6, 2, *ends)
  for name in (PIXEL, LINEAR):
    shape = ARRAYS["unet"][name].shape
    merged = merge(tmp_path, kohya(name, down, up))
    check(merged, "unet", name, (UP @ DOWN).reshape(shape))


def test_a_convolution_is_followed_by_one_of_a_pixel(tmp_path):
  down, up = normal(2, 5, 3, 3), normal(6, 2, 1, 1)
  change = np.zeros((6, 5, 3, 3), np.float32)
  for o in range(6):
    for r in range(2):
      change[o] += up[o, r, 0, 0] * down[r]
  merged = merge(tmp_path, kohya(CONV, down, up))
  check(merged, "unet", CONV, change)


def test_half_precision_is_merged_in_single(tmp_path):
  arrays = {
      name: array.astype(ml_dtypes.bfloat16)
      for name, array in kohya(LINEAR, DOWN, UP).items()
  }
  change = np.float32(arrays[min(arrays, key=len)])  # up, the shorter name
  change = change @ np.float32(arrays[max(arrays, key=len)])
  check(merge(tmp_path, arrays), "unet", LINEAR, change)


def test_the_negative_scale_takes_away_what_was_added(tmp_path):
  arrays = kohya(LINEAR, DOWN, UP)
  path = tmp_path / "a.safetensors"
  tensors.write(path, arrays)
  merged = lora.merge(lora.merge(ARRAYS, path, 0.7), path, -0.7)
  np.testing.assert_allclose(
      merged["unet"][LINEAR], ARRAYS["unet"][LINEAR], atol=1e-6
  )


def changed(**changes):
  """A good file with some tensors changed or, for None, left out."""
  arrays = kohya(LINEAR, DOWN, UP, alpha=np.array(1.0, np.float32))
  layer = min(arrays).removesuffix(".alpha")
  for key, value in changes.items():
    name = f"{layer}.{key}" + (".weight" if "lora" in key else "")
    if value is None:
      del arrays[name]
    else:
      arrays[name] = value
  return arrays


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({}, "it holds no tensors"),
        (changed(lora_up=None), "lacks its other half"),
        (changed(lora_down=None), "lacks its other half"),
        (changed(lora_down=None, lora_up=None), "lacks its other half"),
        (changed(lora_down=normal(2, 4)), r"down \(2, 4\).*a weight \(6, 5\)"),
        (changed(lora_up=normal(7, 2)), r"up \(7, 2\).*for another model"),
        (changed(lora_up=normal(6, 3)), r"up \(6, 3\)"),
        (changed(lora_up=normal(6, 2, 3, 3)), r"up \(6, 2, 3, 3\)"),
        (changed(lora_down=normal(2, 5, 3, 3)), r"down \(2, 5, 3, 3\)"),
        (changed(lora_down=normal(2)), r"down \(2,\)"),
        (changed(lora_down=np.float32(1)), r"down \(\)"),
        (changed(lora_up=np.float32(1)), r"up \(\)"),
        (changed(lora_down=normal(0, 5), lora_up=normal(6, 0)), r"down \(0, 5"),
        (changed(alpha=normal(2)), r"alpha \(2,\)"),
        (changed(lora_down=np.full((2, 5), np.nan, "f4")), "holds NaN"),
        (changed(alpha=np.array(np.inf, "f4")), "alpha holds NaN or inf"),
        (changed(lora_down=np.zeros((2, 5), "i4")), "is int32"),
        (changed(lora_mid=normal(2, 2, 3, 3)), "Tucker.*lora_mid.*not support"),
        (changed(hada_w1_a=normal(2, 2)), "a LoHa"),
        (changed(lokr_w1=normal(2, 2)), "a LoKr"),
        (changed(dora_scale=normal(6, 1)), "a DoRA"),
        (changed(diff=normal(6, 5)), "diff' is no tensor of a LoRA"),
        ({"lora_te1_a.lora_up.weight": UP}, "Stable Diffusion XL"),
        ({"text_encoder_2.a.lora_A.weight": UP}, "Stable Diffusion XL"),
        (
            changed() | kohya("a.b.weight", DOWN, UP) | {"c.alpha": DOWN},
            "2 of 3 layers are not in these weights, first 'c.alpha'",
        ),
        (
            {"vae.a.lora_A.weight": DOWN},
            "1 of 1 layers are not in these weights, first 'vae.a.lora_A",
        ),
        (
            changed() | {f"unet.{ATTENTION}.to_q.lora_A.weight": DOWN},
            "is there twice",
        ),
    ],
)
def test_what_cannot_be_merged_is_one_clear_error(arrays, message, tmp_path):
  arrays = {name: np.array(array) for name, array in arrays.items()}
  with pytest.raises(tensors.WeightsError, match=message):
    merge(tmp_path, arrays)


@pytest.mark.parametrize(
    "notes, message",
    [
        ("{", lora.NOTES),
        ("[]", lora.NOTES),
        ("[" * 100_000, lora.NOTES),
        ('{"unet.lora_alpha": "x"}', "could not convert"),
        ('{"unet.lora_alpha": [1]}', "float"),
        ('{"unet.lora_alpha": NaN}', "lora_alpha is nan"),
        ('{"unet.use_dora": true}', "use_dora is not supported"),
        ('{"text_encoder.use_rslora": true}', "use_rslora is not supported"),
        ('{"unet.alpha_pattern": {"a": 1}}', "alpha_pattern is not supported"),
    ],
    ids=lambda text: text[:30],
)
def test_notes_that_ask_for_more_are_one_clear_error(notes, message, tmp_path):
  with pytest.raises(tensors.WeightsError, match=message):
    merge(tmp_path, changed(), 1.0, {lora.NOTES: notes})


def test_a_pickle_is_refused(tmp_path):
  (tmp_path / "a.pt").write_bytes(b"PK\x03\x04" + bytes(100))
  with pytest.raises(tensors.WeightsError, match="a pickle"):
    lora.merge(ARRAYS, tmp_path / "a.pt", 1.0)


def test_loras_add_up_in_a_loaded_model(pipeline, folder, tmp_path):
  layer = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
  down, up = normal(2, 32), normal(64, 2)
  path = tmp_path / "a.safetensors"
  tensors.write(path, kohya(layer, down, up))
  loaded = weights.load(folder, loras=[(path, 0.5), (path, 0.25)])
  kernel = lambda model: model.params["unet"]["mid_block"]["attentions.0"][
      "transformer_blocks.0"
  ]["attn2"]["to_k"]["kernel"]
  np.testing.assert_allclose(
      kernel(loaded) - kernel(pipeline), 0.75 * (up @ down).T, atol=1e-5
  )


def layers(pipe):
  """(name, shape of the weight) of layers of every kind, text tower last."""
  for name, module in pipe.unet.named_modules():
    if name.endswith(("to_q", "to_out.0", "ff.net.0.proj", "proj_in")):
      yield "unet", name, module.weight.shape
    if name.endswith(("conv1", "conv_shortcut", "time_emb_proj")):
      yield "unet", name, module.weight.shape
    if name.endswith(("downsamplers.0.conv", "upsamplers.0.conv")):
      yield "unet", name, module.weight.shape
  for name, module in pipe.text_encoder.named_modules():
    if name.endswith(("q_proj", "out_proj", "fc1")):
      yield "text_encoder", name.removeprefix("text_model."), (
          module.weight.shape
      )


def peft_names(part, name):
  name = f"text_model.{name}" if part == "text_encoder" else name
  return f"{part}.{name}", "lora_A", "lora_B"


def kohya_names(part, name):
  prefix = "lora_te_text_model_" if part == "text_encoder" else "lora_unet_"
  return prefix + name.replace(".", "_"), "lora_down", "lora_up"


def make_file(pipe, names, alphas):
  """A LoRA of rank 4 that changes the answers a lot."""
  arrays = {}
  for i, (part, name, shape) in enumerate(layers(pipe)):
    layer, down, up = names(part, name)
    arrays[f"{layer}.{down}.weight"] = normal(4, *shape[1:]) / 4
    ones = (1,) * (len(shape) - 2)
    arrays[f"{layer}.{up}.weight"] = normal(shape[0], 4, *ones) / 8
    if alphas:
      arrays[f"{layer}.alpha"] = np.array(alphas[i % len(alphas)], np.float32)
  return arrays


@pytest.mark.parity
@pytest.mark.parametrize(
    "names, alphas, notes",
    [
        (peft_names, (), {}),
        (peft_names, (), {"r": 4, "lora_alpha": 2, "target_modules": ["to_q"]}),
        (kohya_names, (2.0,), {}),
    ],
    ids=["PEFT", "PEFT with alpha", "kohya"],
)
def test_merging_is_that_of_diffusers(
    names, alphas, notes, torch_pipeline, torch_folder, assert_same_answers,
    tmp_path,
):
  pytest.importorskip("peft")
  diffusers = pytest.importorskip("diffusers")
  torch = pytest.importorskip("torch")
  arrays = make_file(torch_pipeline[0], names, alphas)
  path = tmp_path / "style.safetensors"
  if notes:
    modules = [name for _, name, _ in layers(torch_pipeline[0])]
    notes = {
        lora.NOTES: json.dumps({
            f"{part}.{key}": modules if key == "target_modules" else value
            for part in ("unet", "text_encoder")
            for key, value in notes.items()
        })
    }
  safetensors.numpy.save_file(arrays, path, {"format": "pt"} | notes)
  pipe = diffusers.StableDiffusionPipeline.from_pretrained(
      torch_folder, dtype=torch.float32
  )
  pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
  pipe.fuse_lora(lora_scale=0.8)
  pipe.unload_lora_weights()
  ours = weights.load(torch_folder, loras=[(path, 0.8)])
  assert_same_answers(pipe, ours, "a red mug")
  with pytest.raises(AssertionError):  # Else nothing would be compared.
    assert_same_answers(torch_pipeline[0], ours, "a red mug")


@pytest.mark.parity
@pytest.mark.parametrize("torch_pipeline", ["1.x"], indirect=True)
def test_kohyas_names_are_those_that_diffusers_translates(torch_pipeline):
  pytest.importorskip("diffusers")
  torch = pytest.importorskip("torch")
  from diffusers.loaders import lora_conversion_utils  # Torch is there.

  pipe, _ = torch_pipeline
  arrays = make_file(pipe, kohya_names, (1.0, 2.0))
  translated, _ = (
      lora_conversion_utils._convert_non_diffusers_lora_to_diffusers({
          name: torch.tensor(array) for name, array in arrays.items()
      })
  )
  theirs = {
      lora._place(name.split("lora.down")[0].split("lora_l")[0].rstrip("._"))
      for name in translated
      if ".down." in name
  }
  wanted = {
      (part, name.replace(".", "_")) for part, name, _ in layers(pipe)
  }
  assert theirs == wanted
