"""Parameter trees to and from checkpoints."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from dreamjax.diffusion import keys
from dreamjax.diffusion import tensors

TREE = {
    "conv": {
        "kernel": np.arange(3 * 3 * 2 * 5, dtype=np.float32).reshape(3, 3, 2, 5)
    },
    "mix.0": {
        "kernel": np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3),
        "bias": np.ones(3, np.float32),
    },
    "time_embedding.linear_1": {"kernel": np.full((2, 3), 1 / 3, np.float32)},
    "words": {"embedding": np.arange(8, dtype=np.float32).reshape(4, 2)},
}
SHAPES = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), TREE)


def read(arrays, dtype=jnp.float32):
  return keys.from_checkpoint(arrays, SHAPES, "file", dtype)


def test_keys_and_layouts_are_those_of_pytorch():
  arrays = keys.to_checkpoint(TREE)
  assert arrays.keys() == {
      "conv.weight",
      "mix.0.weight",
      "mix.0.bias",
      "time_embedding.linear_1.weight",
      "words.weight",
  }
  assert arrays["conv.weight"].shape == (5, 2, 3, 3)
  assert arrays["conv.weight"][4, 1, 0, 2] == TREE["conv"]["kernel"][0, 2, 1, 4]
  assert arrays["words.weight"].shape == (4, 2)


def test_there_and_back_is_the_identity():
  tree = read(keys.to_checkpoint(TREE))
  jax.tree.map(np.testing.assert_array_equal, tree, TREE)


def test_only_large_parameters_are_cast():
  tree = read(keys.to_checkpoint(TREE), jnp.bfloat16)
  assert tree["conv"]["kernel"].dtype == jnp.bfloat16
  assert tree["words"]["embedding"].dtype == jnp.bfloat16
  assert tree["mix.0"]["bias"].dtype == jnp.float32
  assert tree["time_embedding.linear_1"]["kernel"].dtype == jnp.float32


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_every_float_type_is_read(dtype):
  arrays = {k: v.astype(dtype) for k, v in keys.to_checkpoint(TREE).items()}
  tree = read(arrays)
  assert tree["conv"]["kernel"].dtype == jnp.float32
  np.testing.assert_array_equal(
      tree["conv"]["kernel"], TREE["conv"]["kernel"].astype(dtype)
  )


def test_a_matrix_and_a_convolution_of_one_pixel_stand_for_each_other():
  arrays = keys.to_checkpoint(TREE)
  arrays["mix.0.weight"] = arrays["mix.0.weight"][:, :, 0, 0]
  arrays["time_embedding.linear_1.weight"] = arrays[
      "time_embedding.linear_1.weight"
  ][:, :, None, None]
  jax.tree.map(np.testing.assert_array_equal, read(arrays), TREE)


def without(name):
  arrays = keys.to_checkpoint(TREE)
  del arrays[name]
  return arrays


@pytest.mark.parametrize(
    "change, message",
    [
        ({"extra.weight": np.zeros(1, "f4")}, "1 tensors are unknown.*'ex"),
        (
            {"conv.weight": np.zeros((5, 2, 3, 4), "f4")},
            r"conv.weight is \(5, 2, 3, 4\), the config wants \(5, 2, 3, 3\)",
        ),
        ({"mix.0.weight": np.zeros(6, "f4")}, r"mix.0.weight is \(6,"),
        ({"mix.0.bias": np.zeros(3, "i4")}, "mix.0.bias is int32"),
        ({"mix.0.bias": np.array([0, np.nan, 0], "f4")}, "bias holds NaN"),
        ({"words.weight": np.full((4, 2), np.inf, "f2")}, "infinity"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
  with pytest.raises(tensors.WeightsError, match=message):
    read(keys.to_checkpoint(TREE) | change)


def test_a_missing_tensor_is_named():
  with pytest.raises(tensors.WeightsError, match="missing.*'conv.weight'"):
    read(without("conv.weight"))


def test_a_value_too_large_for_the_wanted_type_is_refused():
  arrays = keys.to_checkpoint(TREE)
  arrays["conv.weight"] = np.full((5, 2, 3, 3), 1e300)
  with pytest.raises(tensors.WeightsError, match="conv.weight"):
    read(arrays)


def old_names(prefix, names):
  """Shapes of an attention and its arrays as `names` call them."""
  parts = ("to_q", "to_k", "to_v", "to_out.0")
  attention = {
      part: {"kernel": np.full((2, 2), i, np.float32)}
      for i, part in enumerate(parts)
  }
  tree = {prefix: {"mid_block": {"attentions.0": attention}}}
  arrays = {
      f"{prefix}.mid_block.attentions.0.{name}.weight": np.full(
          (2, 2, 1, 1), i, np.float32
      )
      for i, name in enumerate(names)
  }
  return tree, arrays


@pytest.mark.parametrize("prefix", ["encoder", "decoder"])
def test_the_old_names_of_the_autoencoders_attention_are_read(prefix):
  tree, arrays = old_names(prefix, ("query", "key", "value", "proj_attn"))
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
  result = keys.from_checkpoint(arrays, shapes, "file")
  jax.tree.map(np.testing.assert_array_equal, result, tree)


def test_both_names_of_one_tensor_are_refused():
  tree, arrays = old_names("encoder", ("query", "key", "value", "proj_attn"))
  _, today = old_names("encoder", ("to_q", "to_k", "to_v", "to_out.0"))
  with pytest.raises(tensors.WeightsError, match="there twice"):
    keys.from_checkpoint(arrays | today, tree, "file")


def test_a_text_tower_is_read_with_and_without_its_prefix_and_buffer():
  tree = {"embeddings.token_embedding": {"embedding": np.ones((3, 2), "f4")}}
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
  name = "embeddings.token_embedding.weight"
  table = np.ones((3, 2), np.float32)
  places = {"text_model.embeddings.position_ids": np.arange(3)[None]}
  for arrays in ({name: table}, {f"text_model.{name}": table} | places):
    result = keys.from_checkpoint(arrays, shapes, "file")
    jax.tree.map(np.testing.assert_array_equal, result, tree)
