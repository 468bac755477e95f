"""Norms and attention."""

import re

import jax
from jax import random
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax.diffusion import layers


def test_group_norm_makes_every_group_standard():
  x = 5.0 + 3.0 * random.normal(random.key(0), (2, 4, 4, 12))
  params = {"scale": jnp.ones(12), "bias": jnp.zeros(12)}
  y = layers.GroupNorm(3, 0.0).apply({"params": params}, x)
  groups = y.reshape(2, 16, 3, 4)
  np.testing.assert_allclose(groups.mean((1, 3)), 0.0, atol=1e-5)
  np.testing.assert_allclose(groups.var((1, 3)), 1.0, rtol=1e-5)


def test_group_norm_survives_a_large_mean():
  # E[x^2] - E[x]^2 would lose all digits here.
  x = 1e4 + random.normal(random.key(0), (1, 8, 8, 4))
  params = {"scale": jnp.ones(4), "bias": jnp.zeros(4)}
  y = layers.GroupNorm(1, 0.0).apply({"params": params}, x)
  np.testing.assert_allclose(y.var(), 1.0, rtol=1e-3)


def test_layer_norm_scales_and_shifts_standard_rows():
  x = 5.0 + 3.0 * random.normal(random.key(0), (2, 3, 64))
  params = {"scale": jnp.full(64, 2.0), "bias": jnp.ones(64)}
  y = layers.LayerNorm(0.0).apply({"params": params}, x)
  np.testing.assert_allclose(y.mean(-1), 1.0, atol=1e-5)
  np.testing.assert_allclose(y.var(-1), 4.0, rtol=1e-5)


@pytest.mark.parametrize(
    "module", [layers.GroupNorm(1, 1e-5), layers.LayerNorm()]
)
def test_norms_keep_bfloat16(module):
  x = jnp.ones((1, 2, 2, 4), jnp.bfloat16)
  params = {"scale": jnp.ones(4), "bias": jnp.zeros(4)}
  assert module.apply({"params": params}, x).dtype == jnp.bfloat16


def heads(shape=(2, 24, 3, 4)):
  keys = random.split(random.key(0), 3)
  return [random.normal(key, shape) for key in keys]


def brute_force(query, key, value):
  scores = jnp.einsum("btnd,bsnd->bnts", query, key) / np.sqrt(query.shape[-1])
  return jnp.einsum("bnts,bsnd->btnd", jax.nn.softmax(scores), value)


@pytest.mark.parametrize("block", [24 * 24, 24 * 8, 24 * 7, 1])
def test_attention_in_blocks_is_attention(block, monkeypatch):
  monkeypatch.setattr(layers, "ATTENTION_BLOCK", block)
  inputs = heads()
  np.testing.assert_allclose(
      layers.attend(*inputs), brute_force(*inputs), atol=1e-6
  )
  loss = lambda attend: lambda *inputs: jnp.sum(jnp.sin(attend(*inputs)))
  gradients = jax.grad(loss(layers.attend), (0, 1, 2))(*inputs)
  wanted = jax.grad(loss(brute_force), (0, 1, 2))(*inputs)
  for gradient, want in zip(gradients, wanted):
    np.testing.assert_allclose(gradient, want, atol=2e-6)


def test_causal_attention_does_not_see_what_follows():
  query, key, value = heads()
  first = layers.attend(query, key, value, causal=True)
  value = value.at[:, 10:].set(0.0)
  second = layers.attend(query, key, value, causal=True)
  np.testing.assert_array_equal(first[:, :10], second[:, :10])
  assert not np.allclose(first[:, 10:], second[:, 10:])


def test_no_array_of_4096_by_4096_scores_is_made():
  shape = jax.ShapeDtypeStruct((1, 4096, 2, 40), jnp.float32)
  loss = lambda *inputs: layers.attend(*inputs).sum()
  compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*[shape] * 3).compile()
  assert not re.search(r"\[([0-9]+,)*4096,4096[],]", compiled.as_text())
  # Two heads' blocks of scores, their softmax and gradients; whole scores
  # would be 4 bytes x 2 heads x 4096^2 = 134 MB for one such array.
  assert compiled.memory_analysis().temp_size_in_bytes < 100e6


@pytest.mark.parametrize(
    "dtype, length, keys, width, want",
    [
        (jnp.bfloat16, 4096, 4096, 40, "cudnn"),
        (jnp.float16, 1024, 1024, 80, "cudnn"),
        (jnp.float32, 1024, 1024, 40, "xla"),  # cuDNN knows halves only.
        (jnp.bfloat16, 4096, 77, 40, "xla"),  # A text is short.
        (jnp.bfloat16, 1024, 1024, 512, "xla"),  # The autoencoder's head.
        (jnp.bfloat16, 1024, 1024, 36, "xla"),
    ],
)
def test_a_gpu_fuses_what_cudnn_takes(
    dtype, length, keys, width, want, monkeypatch
):
  asked = []

  def attention(query, key, value, *, is_causal, implementation):
    del key, value, is_causal
    asked.append((implementation, query.shape[1]))
    return query

  monkeypatch.setattr(layers, "_has_fused_attention", lambda: True)
  monkeypatch.setattr(jax.nn, "dot_product_attention", attention)
  query = jax.ShapeDtypeStruct((1, length, 2, width), dtype)
  key = jax.ShapeDtypeStruct((1, keys, 2, width), dtype)
  jax.eval_shape(layers.attend, query, key, key)
  assert asked == [(want, length)]


def test_a_cpu_has_no_cudnn():
  assert layers._has_fused_attention() == (jax.default_backend() == "gpu")


@pytest.mark.gpu
def test_fused_attention_is_attention():
  inputs = [x.astype(jnp.bfloat16) for x in heads((1, 1024, 2, 40))]
  want = brute_force(*(x.astype(jnp.float32) for x in inputs))
  # bfloat16 keeps 8 bits of the probabilities and of the result.
  np.testing.assert_allclose(
      jax.jit(layers.attend)(*inputs).astype(jnp.float32), want, atol=0.02
  )
