"""Maps that take their work in parts, so that memory grows with a part."""

import functools

import jax
from jax import custom_batching
from jax import lax
import jax.numpy as jnp


@custom_batching.custom_vmap
def _for_any(flags):
  """bool[N], whether any of the prompts that are mapped over has the flag.

  A branch that depended on the prompt would be taken both ways for all.
  """
  return flags


@_for_any.def_vmap
def _for_any_prompt(axis_size, in_batched, flags):
  del axis_size, in_batched
  return jnp.any(flags, axis=0), False


def map_slots(function, count, slots, chunk, remember=()):
  """Maps the slots in use; work grows with them and not with the budget.

  The backward pass computes each chunk anew, so that memory grows with the
  chunk. Slots that fit into one chunk are computed at once and remembered.

  Args:
    function: (pytree of arrays with leading axis N, how many of them are in
      use i32[]) -> another such pytree.
    count: i32[], slots in use; they come first.
    slots: pytree of arrays of shape [M].
    chunk: slots at a time.
    remember: names of the values inside `function` that the backward pass
      does not compute anew (`jax.ad_checkpoint.checkpoint_name`).
  Returns:
    What `function` returns, with leading axis M; 0 in chunks without a slot
    in use.
  """
  size = jax.tree.leaves(slots)[0].shape[0]
  if size <= chunk:
    return function(slots, count)
  num_chunks = -(-size // chunk)
  split = lambda leaf: jnp.pad(leaf, (0, num_chunks * chunk - size)).reshape(
      num_chunks, chunk
  )

  @functools.partial(
      jax.checkpoint,
      prevent_cse=False,
      policy=jax.checkpoint_policies.save_only_these_names(*remember),
  )
  def step(chunk_of_slots):
    flag, *arguments = chunk_of_slots
    shapes = jax.eval_shape(function, *arguments)
    empty = lambda *_: jax.tree.map(
        lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes
    )
    return lax.cond(flag, function, empty, *arguments)

  used = jnp.clip(
      count - chunk * jnp.arange(num_chunks, dtype=jnp.int32), 0, chunk
  )
  parts = lax.map(
      step, (_for_any(used > 0), jax.tree.map(split, slots), used)
  )
  return jax.tree.map(
      lambda leaf: leaf.reshape((-1,) + leaf.shape[2:])[:size], parts
  )


def map_groups(function, arrays, size):
  """Maps entries that do not know each other, so many at a time.

  The backward pass computes each group anew.

  Args:
    function: pytree of arrays with leading axis N -> another such pytree.
    arrays: such a pytree.
    size: largest number of entries of a group; all groups are equal. 0 for
      all entries at once, and nothing is computed anew.
  Returns:
    What `function` returns.
  """
  if not size:
    return function(arrays)
  total = jax.tree.leaves(arrays)[0].shape[0]
  size = max(n for n in range(1, min(size, total) + 1) if total % n == 0)
  split = lambda leaf: leaf.reshape((-1, size) + leaf.shape[1:])
  merge = lambda leaf: leaf.reshape((total,) + leaf.shape[2:])
  parts = lax.map(jax.checkpoint(function), jax.tree.map(split, arrays))
  return jax.tree.map(merge, parts)
