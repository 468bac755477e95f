"""Hash encoding and network in one pass, with the slope that normals need.

Notation: N points, of which the first may be all that is in use, L levels, F
features per level, T table entries, O outputs.

On a CPU the pass is a kernel: features, their derivatives and hidden layers
of a block of points never leave the core's cache, and the hidden layers are
computed once for outputs and slope. Elsewhere it is made of the kernels of
`hash_encode` and `mlp`.

With features E and network f, the outputs are f(E(x)) and the slope is
dE/dx^T G at G = df_0/dE. For cotangents g of the outputs and v of the slope,
and with the directional derivative u = (dE/dx) v, the gradients are

  of the table:    sum over corners of w df^T g/dE + (v . grad w) G
  of the weights:  those of <g, f> and of <u, G>

which is the first order and the second in one pass each (`_gradient`).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dreamjax.ops import arguments
from dreamjax.ops import hash_encode
from dreamjax.ops import hash_grid
from dreamjax.ops import kernels
from dreamjax.ops import mlp


def hash_mlp(table, weights, position, grid, count=None):
  """Outputs of a network at the hash encoding of points.

  Args:
    table: f32[..., T, F], see `hash_encode.hash_encode`.
    weights: matrices, see `mlp.mlp`; the first one has L F rows.
    position: f32[..., N, 3], see `hash_encode.hash_encode`.
    grid: hash_grid.HashGrid.
    count: i32[...], points in use; they come first. None for all.
  Returns:
    f32[..., N, O], 0 for points not in use. Differentiable twice in reverse
    mode.
  Raises:
    TypeError: a dtype is not float32, or that of `count` not int32.
    ValueError: there is no matrix, or a shape does not fit.
  """
  arrays = _check("hash_mlp", table, weights, position, count, grid)
  if not _fits(arrays[1], grid):
    return _compose(*arrays, grid)
  return _output(*arrays, grid)


def hash_mlp_slope(table, weights, position, grid, count=None):
  """`hash_mlp`, and the derivative of the first output.

  Args:
    table: as for `hash_mlp`.
    weights: as well.
    position: as well.
    grid: as well.
    count: as well.
  Returns:
    outputs f32[..., N, O]; slope f32[..., N, 3], d output_0 / d position; 0
    for points not in use. Both differentiable in reverse mode.
  Raises:
    TypeError: a dtype is not float32, or that of `count` not int32.
    ValueError: there is no matrix, or a shape does not fit.
  """
  arrays = _check("hash_mlp_slope", table, weights, position, count, grid)
  if not _fits(arrays[1], grid):
    return _compose_slope(*arrays, grid)
  return _slope(*arrays, grid)


def definition(table, weights, position, grid, count=None):
  """`hash_mlp` in jax.numpy: specification and oracle."""
  feature = hash_encode.definition(table, position, grid)
  output = mlp.definition(weights, feature)
  return output if count is None else _of_used(output, count)


def definition_slope(table, weights, position, grid, count=None):
  """`hash_mlp_slope` in jax.numpy: specification and oracle."""
  return _with_slope(
      lambda position: definition(table, weights, position, grid, count),
      position,
      count,
  )


def _of_used(array, count):
  """f32[..., N, K], 0 behind the first `count` of N."""
  slot = jnp.arange(array.shape[-2], dtype=jnp.int32)
  used = slot < jnp.asarray(count)[..., None]
  return jnp.where(used[..., None], array, 0.0)


def _check(op, table, weights, position, count, grid):
  """(table, weights, position, count) as a kernel wants them, if they fit."""
  hash_grid.check_grid(op, grid)
  weights = tuple(weights)
  if not weights:
    raise ValueError(f"{op}: weights is empty, want at least one matrix.")
  names = (grid.num_features, *(f"H{i}" for i in range(1, len(weights))), "O")
  arguments.check(
      op,
      table=(table, "float32", (grid.num_entries, grid.features)),
      position=(position, "float32", ("N", 3)),
      **{
          f"weights[{i}]": (weight, "float32", names[i : i + 2])
          for i, weight in enumerate(weights)
      },
      **({} if count is None else {"count": (count, "int32", ())}),
  )
  if count is None:
    count = jnp.full(position.shape[:-2], position.shape[-2], jnp.int32)
  return table, weights, position, count


def _fits(weights, grid):
  """Whether the kernel can do it: its vectors hold four features."""
  return grid.features % 4 == 0 and mlp.fits(weights)


def _with_slope(function, position, count):
  """A function's outputs, and the derivative of the first."""
  output, pull = jax.vjp(function, position)
  # Points do not know each other, so one pull gives the slope at all of them.
  first = jnp.zeros_like(output).at[..., 0].set(1.0)
  slope = pull(first)[0]
  # It is 0 there already; but neither may its cotangent be looked at.
  return output, slope if count is None else _of_used(slope, count)


def _compose(table, weights, position, count, grid):
  """`hash_mlp`, made of the kernels of its parts."""
  feature = hash_encode.hash_encode(table, position, grid)
  return _of_used(mlp.mlp(weights, feature), count)


def _compose_slope(table, weights, position, count, grid):
  return _with_slope(
      lambda position: _compose(table, weights, position, count, grid),
      position,
      count,
  )


def _compose_gradient(
    table, weights, position, count, cotangent, slope_cotangent, grid
):
  """Gradients of `_compose_slope` by table and weights, as at the top."""
  g = _of_used(cotangent, count)
  v = _of_used(slope_cotangent, count)
  feature = hash_encode.hash_encode(table, position, grid)
  u = hash_encode.tangent(table, position, v, grid)
  first = jnp.zeros_like(g).at[..., 0].set(1.0)

  def total(weights, feature):
    output, pull = jax.vjp(functools.partial(mlp.mlp, weights), feature)
    (slope_by_feature,) = pull(first)
    value = jnp.vdot(g, output) + jnp.vdot(u, slope_by_feature)
    return value, slope_by_feature

  gradient = jax.grad(total, (0, 1), has_aux=True)
  (by_weights, by_feature), slope_by_feature = gradient(weights, feature)
  by_table = hash_encode.table_gradients(
      position, by_feature, slope_by_feature, v, grid
  )
  return by_table, by_weights


def _call(target, define, results, table, weights, *arrays, grid):
  """Runs a kernel.

  Args:
    target: what follows "dreamjax_hash_mlp" in its name.
    define: function of (table, weights, *arrays) that returns a tuple of the
      same results.
    results: list of shapes, batch axes included.
    table: as for `hash_mlp`.
    weights: as well.
    *arrays: positions, count and cotangents.
    grid: as well.
  Returns:
    Tuple of arrays.
  """
  return kernels.call(
      "dreamjax_hash_mlp" + target,
      lambda table, flat, *arrays: define(
          table, mlp.matrices(flat, weights), *arrays
      ),
      tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in results),
      table,
      mlp.flat(weights),
      *arrays,
      scales=np.asarray(grid.scales, np.float32),
      resolutions=np.asarray(grid.resolutions, np.int32),
      offsets=np.asarray(grid.offsets, np.int64),
      level_sizes=np.asarray(grid.sizes, np.int64),
      features=np.int32(grid.features),
      smoothstep=np.bool_(grid.smoothstep),
      sizes=mlp.sizes(weights),
  )


def _gradient(
    target, function, table, weights, position, count, cotangents, grid
):
  """Gradients of the table and the weights, for outputs and maybe slope."""
  has_slope = len(cotangents) > 1
  batch, num_points = position.shape[:-2], position.shape[-2]
  parts = mlp.num_parts(weights, num_points)

  def define(*arrays):
    if has_slope:
      gradient, gradients = _compose_gradient(*arrays, grid)
    else:
      table, weights, *others, cotangent = arrays
      compose = lambda *params: function(*params, *others, grid)
      gradient, gradients = jax.vjp(compose, table, weights)[1](cotangent)
    scratch = jnp.zeros(scratch_shape, jnp.float32)
    return gradient, mlp.partial(gradients, parts), scratch

  # The last axes of a result may be anything, but batches come first: what
  # vmap adds is one more of them.
  scratch_shape = batch + (len(cotangents), num_points, grid.num_features)
  gradient, partial, _ = _call(
      target,
      define,
      [
          batch + (grid.num_entries, grid.features),
          batch + (parts, int(sum(w.shape[-2] * w.shape[-1] for w in weights))),
          scratch_shape,
      ],
      table,
      weights,
      position,
      count,
      *cotangents,
      grid=grid,
  )
  return gradient, mlp.matrices(jnp.sum(partial, axis=-2), weights)


def _filled(cotangent):
  """An array, where a cotangent may be a symbolic zero."""
  if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
    return jnp.zeros(cotangent.shape, cotangent.dtype)
  return cotangent


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _output(table, weights, position, count, grid):
  return _call(
      "",
      lambda *arrays: (_compose(*arrays, grid),),
      [position.shape[:-1] + (weights[-1].shape[-1],)],
      table,
      weights,
      position,
      count,
      grid=grid,
  )[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _slope(table, weights, position, count, grid):
  return _call(
      "_slope",
      lambda *arrays: _compose_slope(*arrays, grid),
      [position.shape[:-1] + (weights[-1].shape[-1],), position.shape],
      table,
      weights,
      position,
      count,
      grid=grid,
  )


def _forward(function):
  """The forward rule of `_output` or `_slope`."""

  def forward(table, weights, position, count, grid):
    # Positions are hardly ever trained. Where they are, and where a gradient
    # is differentiated once more, the parts' own kernels are as good.
    moves = position.perturbed
    arrays = mlp.values(table, weights, position, count)
    return function(*arrays, grid), (arrays, () if moves else None)

  return forward


def _backward(target, function):
  """The backward rule: all cotangents at once."""

  def backward(grid, residual, cotangents):
    (table, weights, position, count), moves = residual
    cotangents = jax.tree.map(
        _filled,
        cotangents,
        is_leaf=lambda leaf: isinstance(
            leaf, jax.custom_derivatives.SymbolicZero
        ),
    )
    if moves is not None:
      composed = lambda *arrays: function(*arrays, count, grid)
      pull = jax.vjp(composed, table, weights, position)[1]
      return *pull(cotangents), None
    return *_first_order(target, function, grid)(
        table, weights, position, count, cotangents
    ), None, None

  return backward


def _first_order(target, function, grid):
  """Function of (table, weights, position, count, cotangents).

  It returns the gradients of table and weights.
  """

  @jax.custom_vjp
  def gradient(table, weights, position, count, cotangents):
    arrays = cotangents if isinstance(cotangents, tuple) else (cotangents,)
    return _gradient(
        target, function, table, weights, position, count, arrays, grid
    )

  def backward(arrays, second):
    table, weights, position, count, cotangents = arrays

    def define(table, weights, position, cotangents):
      composed = lambda *params: function(*params, position, count, grid)
      return jax.vjp(composed, table, weights)[1](cotangents)

    pull = jax.vjp(define, table, weights, position, cotangents)[1]
    *others, by_cotangents = pull(second)
    return *others, None, by_cotangents

  gradient.defvjp(lambda *arrays: (gradient(*arrays), arrays), backward)
  return gradient


_output.defvjp(
    _forward(_output), _backward("_gradient", _compose), symbolic_zeros=True
)
_slope.defvjp(
    _forward(_slope),
    _backward("_slope_gradient", _compose_slope),
    symbolic_zeros=True,
)
