"""Every operation under every transformation of JAX: the same results."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import op_inputs
import pytest

operations = pytest.mark.parametrize("name", op_inputs.OPERATIONS)


def _each(run):
  """Function: what `run` makes of each copy, in turn."""

  def call(*arrays):
    results = [
        run(*jax.tree.map(lambda array: array[i], arrays))
        for i in range(op_inputs.COPIES)
    ]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *results)

  return call


@functools.cache
def _expected(name):
  """The results of an operation without a transformation."""
  compute, operation, arrays = op_inputs.OPERATIONS[name]
  return jax.jit(_each(compute(operation)))(*arrays)


def _eager(*arrays, run):
  with jax.disable_jit():
    return _each(run)(*arrays)


def _scan(run):
  step = lambda carry, arrays: (carry, run(*arrays))
  return jax.jit(lambda *arrays: jax.lax.scan(step, 0, arrays)[1])


def _shard_map(run):
  mesh = jax.make_mesh(
      (op_inputs.COPIES,), ("device",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  rows = jax.sharding.PartitionSpec("device")
  return jax.jit(
      jax.shard_map(
          jax.vmap(run),
          mesh=mesh,
          in_specs=rows,
          out_specs=rows,
          check_vma=False,
      )
  )


def _donated(run):
  """Arguments are given away, and come back in the same memory."""

  def call(*arrays):
    keep = jax.jit(
        lambda *arrays: (jax.vmap(run)(*arrays), arrays),
        donate_argnums=range(len(arrays)),
    )
    given = jax.tree.map(jnp.copy, arrays)
    results, kept = keep(*given)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(arrays)):
      np.testing.assert_array_equal(a, b)
    return results

  return call


@pytest.mark.parametrize(
    "transform",
    [
        lambda run: functools.partial(_eager, run=run),
        jax.vmap,
        _scan,
        jax.pmap,
        _shard_map,
        _donated,
    ],
    ids=["eager", "vmap", "scan", "pmap", "shard_map", "donated"],
)
@operations
def test_a_transformation_changes_no_result(transform, name, assert_close):
  compute, operation, arrays = op_inputs.OPERATIONS[name]
  assert_close(transform(compute(operation))(*arrays), _expected(name))


@operations
def test_what_is_computed_anew_is_the_same(name, assert_close):
  compute, operation, arrays = op_inputs.OPERATIONS[name]
  run = jax.vmap(compute(jax.remat(operation)))
  assert_close(run(*arrays), _expected(name))


@operations
def test_one_buffer_may_be_two_arguments(name, assert_close):
  compute, operation, arrays = op_inputs.OPERATIONS[name]
  run = jax.vmap(compute(operation))
  leaves, structure = jax.tree.flatten(arrays)
  first = {}
  for leaf in leaves:
    first.setdefault((leaf.shape, leaf.dtype), leaf)
  shared = [first[leaf.shape, leaf.dtype] for leaf in leaves]
  assert len(first) < len(leaves)
  copies = [jnp.copy(leaf) for leaf in shared]
  assert_close(
      run(*structure.unflatten(shared)), run(*structure.unflatten(copies))
  )
