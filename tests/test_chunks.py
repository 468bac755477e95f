"""Chunked maps equal plain ones where slots are used, and skip the rest."""

import jax
from jax import ad_checkpoint
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import chunks

SLOTS = jnp.linspace(-1.0, 1.0, 23), jnp.arange(23)


def waves(scale, slots):
  """Two arrays of different ranks that depend on all slots."""
  place, index = slots
  phase = ad_checkpoint.checkpoint_name(jnp.sin(scale * place), "phase")
  return phase, jnp.stack([phase**2, index.astype(jnp.float32)], axis=-1)


def mapped(scale, count, chunk, remember=()):
  return chunks.map_slots(
      lambda slots, _: waves(scale, slots), count, SLOTS, chunk, remember
  )


@pytest.mark.parametrize("chunk", [1, 4, 22, 23, 100])
def test_full_slots_give_the_plain_map(chunk):
  result = mapped(jnp.float32(3.0), jnp.int32(23), chunk)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
      result, waves(3.0, SLOTS),
  )


@pytest.mark.parametrize("count", [0, 1, 8, 9, 23])
def test_chunks_without_a_used_slot_are_zero(count):
  phase, pair = mapped(jnp.float32(3.0), jnp.int32(count), 4)
  used = -(-count // 4) * 4
  np.testing.assert_allclose(phase[:used], waves(3.0, SLOTS)[0][:used])
  assert (phase[used:] == 0).all() and (pair[used:] == 0).all()


@pytest.mark.parametrize(
    "chunk, want", [(100, [9]), (23, [9]), (8, [8, 1, 0]), (9, [9, 0, 0])]
)
def test_function_knows_how_many_slots_are_used(chunk, want):
  result = chunks.map_slots(
      lambda slots, count: jnp.broadcast_to(count, slots[0].shape),
      jnp.int32(9), SLOTS, chunk,
  )
  assert result[::chunk].tolist() == want


@pytest.mark.parametrize("remember", [(), ("phase",)])
def test_gradient_is_that_of_the_used_slots(remember):
  total = lambda scale: sum(
      jnp.sum(leaf)
      for leaf in mapped(scale, jnp.int32(8), 4, remember)
  )
  phase = 3.0 * SLOTS[0][:8]
  expected = jnp.sum((1 + 2 * jnp.sin(phase)) * jnp.cos(phase) * SLOTS[0][:8])
  np.testing.assert_allclose(
      jax.grad(total)(jnp.float32(3.0)), expected, rtol=1e-5
  )


def test_chunk_that_any_prompt_uses_is_computed_once_for_all():
  calls = []

  def function(slots, _):
    jax.debug.callback(lambda place: calls.append(1), slots[0][0])
    return slots[0]

  counts = jnp.array([0, 5, 8], jnp.int32)
  result = jax.vmap(
      lambda count: chunks.map_slots(function, count, SLOTS, 4)
  )(counts)
  jax.block_until_ready(result)
  jax.effects_barrier()
  assert len(calls) == 2
  np.testing.assert_allclose(result[:, :8], np.tile(SLOTS[0][:8], (3, 1)))
  assert (result[:, 8:] == 0).all()


@pytest.mark.parametrize("total, size, want", [(6, 0, 6), (6, 4, 3), (5, 4, 1)])
def test_groups_are_equal_and_at_most_so_large(total, size, want):
  seen = []

  def function(arrays):
    seen.append(len(arrays["x"]))
    return jnp.sin(arrays["x"]) * arrays["y"][:, None], arrays["y"]

  arrays = {"x": jnp.ones((total, 3)), "y": jnp.arange(float(total))}
  got = chunks.map_groups(function, arrays, size)
  assert set(seen) == {want}
  jax.tree.map(np.testing.assert_allclose, got, function(arrays))
