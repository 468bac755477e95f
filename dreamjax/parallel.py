"""Prompts x views over the local devices: every collective of the project.

P prompts with V views each run on D devices. The devices form
G = gcd(P, D) groups of S = D / G; a group carries P / G prompts, and each of
its devices computes V / S views of every one of them. So every device has the
same work. States are equal on all devices of a group: they start equal and
take the mean of the group's gradients.
"""

import math
from typing import Any, Callable, NamedTuple

import jax
import numpy as np

_AXIS = "device"

Tree = Any


class Layout(NamedTuple):
  """Who computes what; made by `layout`, static and hashable."""

  prompts: int
  views: int
  devices: int

  @property
  def groups(self) -> int:
    return math.gcd(self.prompts, self.devices)

  @property
  def group_size(self) -> int:
    return self.devices // self.groups

  @property
  def prompts_per_device(self) -> int:
    return self.prompts // self.groups

  @property
  def views_per_device(self) -> int:
    return self.views // self.group_size


def layout(prompts: int, views: int, devices: int = 0) -> Layout:
  """Divides P prompts x V views over devices.

  Args:
    prompts: P >= 1.
    views: V >= 1, per prompt.
    devices: how many local devices to use; 0 takes the largest number over
      which the work divides.
  Raises:
    ValueError: there are fewer devices, or the work does not divide.
  """
  available = jax.local_device_count()
  if not 0 <= devices <= available:
    raise ValueError(f"devices is {devices}, but {available} are here.")
  fitting = [
      candidate
      for candidate in (Layout(prompts, views, d + 1) for d in range(available))
      if views % candidate.group_size == 0
  ]
  if not devices:
    return fitting[-1]
  wanted = Layout(prompts, views, devices)
  if wanted not in fitting:
    counts = ", ".join(str(candidate.devices) for candidate in fitting)
    raise ValueError(
        f"{prompts} prompts x {views} views do not divide over {devices}"
        f" devices: each prompt would be shared by {wanted.group_size} devices,"
        f" and {views} views are not a multiple of that. Device counts that"
        f" work: {counts}."
    )
  return wanted


def mean_over_group(tree: Tree, where: Layout) -> Tree:
  """Mean of float arrays over the devices that share a prompt.

  Inside a function mapped by `over_devices`; the identity, and so usable
  anywhere, when no prompt is shared.
  """
  if where.group_size == 1:
    return tree
  groups = np.arange(where.devices).reshape(where.groups, where.group_size)
  return jax.lax.pmean(tree, _AXIS, axis_index_groups=groups.tolist())


def over_devices(
    step: Callable[..., tuple[Tree, Tree]], where: Layout
) -> Callable[..., tuple[Tree, Tree]]:
  """Maps the step of one prompt over all prompts and devices.

  Args:
    step: (state, prompt, indices i32[V / S], shared) -> (state, metrics), for
      one prompt and the views with the given global indices. It passes its
      gradients, averaged over its own views, through `mean_over_group`.
      Branches (`lax.cond`) depend on `shared` only: where a device carries
      several prompts `step` runs under `vmap`, which turns a branch on the
      state into the computation of both sides.
    where: the division of work.
  Returns:
    (states, prompts, shared) -> (states, metrics), with `states` and `prompts`
    from `shard`, `shared` from `replicate` (or host scalars). `states` is
    donated. Metrics come as [D, P / G, ...], for `unshard`.
  """
  mapped, numbers = _mapped(step, where), indices(where)
  return lambda states, prompts, shared: mapped(
      states, prompts, numbers, shared
  )


def indices(where: Layout) -> jax.Array:
  """Global numbers of each device's views, i32[D, V / S], on the devices."""
  numbers = np.arange(where.views, dtype=np.int32)
  return jax.device_put(
      np.tile(numbers.reshape(where.group_size, -1), (where.groups, 1)),
      _sharding(where, _AXIS),
  )


def lower(
    step: Callable[..., tuple[Tree, Tree]],
    where: Layout,
    state: Tree,
    prompt: Tree,
    shared: Tree,
) -> jax.stages.Lowered:
  """What `over_devices` gives the compiler; no arrays are made.

  Compiled, it takes (states, prompts, `indices`, shared).

  Args:
    step: as for `over_devices`.
    where: the division of work.
    state: of one prompt; jax.ShapeDtypeStruct will do.
    prompt: one, likewise.
    shared: likewise.
  """

  def local(leaf):
    shape = (where.devices, where.prompts_per_device, *leaf.shape)
    return jax.ShapeDtypeStruct(shape, leaf.dtype)

  numbers = jax.ShapeDtypeStruct(
      (where.devices, where.views_per_device), np.int32
  )
  states, prompts = jax.tree.map(local, (state, prompt))
  return _mapped(step, where).lower(states, prompts, numbers, shared)


def _mapped(step, where):
  """The pmap of `over_devices`; its function takes the views' indices too."""

  def on_device(states, prompts, indices, shared):
    if where.prompts_per_device > 1:
      return jax.vmap(step, in_axes=(0, 0, None, None))(
          states, prompts, indices, shared
      )
    state, prompt = jax.tree.map(lambda x: x[0], (states, prompts))
    return jax.tree.map(lambda x: x[None], step(state, prompt, indices, shared))

  return jax.pmap(
      on_device,
      axis_name=_AXIS,
      in_axes=(0, 0, 0, None),
      donate_argnums=0,
      devices=jax.local_devices()[: where.devices],
  )


def _sharding(where: Layout, *spec: str) -> jax.sharding.Sharding:
  devices = np.array(jax.local_devices()[: where.devices])
  return jax.sharding.NamedSharding(
      jax.sharding.Mesh(devices, (_AXIS,)), jax.sharding.PartitionSpec(*spec)
  )


def replicate(tree: Tree, where: Layout) -> Tree:
  """Puts arrays on every device once, so that no step moves them again."""
  return jax.device_put(tree, _sharding(where))


def shard(tree: Tree, where: Layout) -> Tree:
  """Per-prompt arrays [P, ...] -> [D, P / G, ...], each on its device."""
  sharding = _sharding(where, _AXIS)

  def place(array):
    array = np.asarray(array)
    local = (where.prompts_per_device, *array.shape[1:])
    by_group = array.reshape(where.groups, *local)
    return jax.make_array_from_callback(
        (where.devices, *local),
        sharding,
        lambda index: by_group[(index[0].start or 0) // where.group_size][None],
    )

  return jax.tree.map(place, tree)


def unshard(tree: Tree, where: Layout) -> Tree:
  """Arrays [D, P / G, ...] -> host arrays [P, ...], from one of each group."""

  def collect(array):
    pieces = {
        piece.index[0].start or 0: piece for piece in array.addressable_shards
    }
    first = range(0, where.devices, where.group_size)
    return np.concatenate([np.asarray(pieces[d].data)[0] for d in first])

  return jax.tree.map(collect, tree)
