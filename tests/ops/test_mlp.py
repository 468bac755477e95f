"""Tests of the network: brute force, kernel = definition, both derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import op_inputs
import pytest

from dreamjax.ops import mlp as mlp_lib

SIZES = (20, 32, 4)  # the default recipe's
SHAPES = [
    SIZES,
    (32, 64, 64, 4),
    (9, 16, 16, 16, 16, 3),
    (17, 128, 1),
    (5, 7, 11, 2),  # no width of a register
    (6, 3),
]


every_order = pytest.mark.parametrize(
    "order", [op_inputs.first, op_inputs.normal, op_inputs.second]
)


def _brute_force(weights, x):
  """The output of one point in float64, a loop per unit."""
  hidden = [float(number) for number in x]
  for layer, weight in enumerate(weights):
    weight = np.asarray(weight, np.float64)
    if layer:
      hidden = [max(number, 0.0) for number in hidden]
    hidden = [
        sum(h * w for h, w in zip(hidden, column)) for column in weight.T
    ]
  return np.array(hidden)


def _differences(function, x, step=1e-6):
  """Central differences of a float64 function, one row per input."""
  x = np.asarray(x, np.float64)
  rows = []
  for i in range(x.size):
    unit = np.zeros(x.size)
    unit[i] = step
    unit = unit.reshape(x.shape)
    rows.append((function(x + unit) - function(x - unit)) / (2 * step))
  return np.stack(rows)


@pytest.mark.parametrize("sizes", SHAPES)
def test_outputs_equal_a_brute_force_in_double_precision(sizes, assert_close):
  weights, x, cotangent, direction = op_inputs.mlp(sizes, 7)
  expected = np.stack([_brute_force(weights, row) for row in x])
  for function in (mlp_lib.mlp, mlp_lib.definition):
    output = op_inputs.first(function)(weights, x, cotangent, direction)[0]
    assert_close([output], [expected])


def test_derivatives_equal_finite_differences_of_the_brute_force(assert_close):
  weights, x, cotangent, direction = op_inputs.mlp((5, 8, 6, 3), 3)
  wide = [np.asarray(weight, np.float64) for weight in weights]
  g, v = np.asarray(cotangent, np.float64), np.asarray(direction, np.float64)
  arrays = (weights, x, cotangent, direction)
  _, of_weights, of_input = op_inputs.first(mlp_lib.mlp)(*arrays)
  second_weights, second_input, second_cotangent = op_inputs.second(
      mlp_lib.mlp
  )(*arrays)

  def jacobian(weights, i):
    return _differences(lambda x: _brute_force(weights, x), x[i])  # [C, O]

  for i in range(3):
    assert_close([of_input[i]], [jacobian(wide, i) @ g[i]])
    assert_close([second_cotangent[i]], [v[i] @ jacobian(wide, i)])
  np.testing.assert_array_equal(second_input, 0)
  for layer in range(3):

    def loss(weight, with_slope):
      changed = [*wide]
      changed[layer] = weight
      if with_slope:
        return sum(v[i] @ jacobian(changed, i) @ g[i] for i in range(3))
      return sum(g[i] @ _brute_force(changed, x[i]) for i in range(3))

    shape = weights[layer].shape
    for results, with_slope in ((of_weights, False), (second_weights, True)):
      expected = _differences(
          functools.partial(loss, with_slope=with_slope), wide[layer], 1e-4
      )
      assert_close([results[layer]], [expected.reshape(shape)])


@every_order
@pytest.mark.parametrize("sizes", SHAPES)
def test_kernel_equals_definition(order, sizes, assert_close):
  arrays = op_inputs.mlp(sizes, 300)
  assert_close(order(mlp_lib.mlp)(*arrays), order(mlp_lib.definition)(*arrays))


@every_order
def test_many_parts_equal_the_definition(order, assert_close):
  arrays = op_inputs.mlp(SIZES, 5000)
  assert_close(order(mlp_lib.mlp)(*arrays), order(mlp_lib.definition)(*arrays))


@every_order
def test_every_number_of_points_works(order, assert_close):
  arrays = op_inputs.mlp(SIZES, 300)
  weights, rows = arrays[0], arrays[1:]
  for n in (0, 1, 127, 128, 129, 255, 256, 257):
    part = weights, *(row[:n] for row in rows)
    assert_close(order(mlp_lib.mlp)(*part), order(mlp_lib.definition)(*part))


def test_a_point_does_not_depend_on_its_neighbours():
  weights, x, cotangent, direction = op_inputs.mlp(SIZES, 300)
  run = op_inputs.normal(mlp_lib.mlp)
  whole = run(weights, x, cotangent, direction)
  part = run(weights, x[:130], cotangent[:130], direction[:130])
  for a, b in zip(part, whole):
    np.testing.assert_array_equal(a, b[:130])


def test_no_points_leave_no_gradient():
  arrays = op_inputs.mlp(SIZES, 0)
  for gradient in op_inputs.first(mlp_lib.mlp)(*arrays)[1]:
    np.testing.assert_array_equal(gradient, 0)


@every_order
def test_batch_axes_and_vmap_equal_one_call_each(order, assert_close):
  arrays = op_inputs.mlp(SIZES, 40, batch=(2, 3))
  run = order(mlp_lib.mlp)
  each = [
      [run(*jax.tree.map(lambda leaf: leaf[i, j], arrays)) for j in range(3)]
      for i in range(2)
  ]
  stack = lambda *parts: jnp.stack(parts)
  expected = jax.tree.map(stack, *(jax.tree.map(stack, *row) for row in each))
  assert_close(jax.vmap(jax.vmap(run))(*arrays), expected)
  assert_close(run(*arrays), expected)


def test_weights_that_a_vmap_shares_get_the_sum_of_gradients(assert_close):
  weights, _, _, _ = op_inputs.mlp(SIZES, 0)
  _, x, cotangent, _ = op_inputs.mlp(SIZES, 30, batch=(3,))

  def loss(function, weights):
    return jnp.vdot(cotangent, jax.vmap(lambda x: function(weights, x))(x))

  gradients = [
      jax.jit(jax.grad(functools.partial(loss, function)))(weights)
      for function in (mlp_lib.mlp, mlp_lib.definition)
  ]
  assert_close(*gradients)


@pytest.mark.parametrize("wrap", [jax.remat, lambda function: function])
def test_normals_train_through_a_scan(wrap, assert_close):
  weights, x, cotangent, direction = op_inputs.mlp(SIZES, 64)

  def descend(function, weights):
    def loss(weights):
      output, pull = jax.vjp(functools.partial(function, weights), x)
      return jnp.sum(output**2) + jnp.sum(pull(cotangent)[0] * direction)

    def step(weights, _):
      gradient = jax.grad(wrap(loss))(weights)
      return jax.tree.map(lambda w, g: w - 1e-3 * g, weights, gradient), None

    return jax.lax.scan(step, weights, length=3)[0]

  run = lambda function: jax.jit(functools.partial(descend, function))(weights)
  assert_close(run(mlp_lib.mlp), run(mlp_lib.definition))


def test_a_gradient_of_a_gradient_of_the_weights_is_the_definition_s(
    assert_close
):
  weights, x, cotangent, _ = op_inputs.mlp((4, 8, 2), 10)

  def twice(function, weights, x):
    inner = lambda weights, x: jnp.vdot(cotangent, function(weights, x))
    gradients = jax.grad(inner, (0, 1))(weights, x)
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradients))

  run = lambda function: jax.jit(
      jax.grad(functools.partial(twice, function), (0, 1))
  )(weights, x)
  assert_close(run(mlp_lib.mlp), run(mlp_lib.definition))


def test_only_what_is_wanted_is_computed():
  arrays = op_inputs.mlp(SIZES, 8)
  text = op_inputs.normal(mlp_lib.mlp).lower(*arrays).as_text()
  assert "@dreamjax_mlp_input_gradient" in text
  assert "@dreamjax_mlp_gradient" not in text


@pytest.mark.parametrize("place", [0, 1])
def test_nan_stays_in_its_point_or_fills_what_it_weighs(place):
  weights, x, cotangent, direction = op_inputs.mlp(SIZES, 200)
  if place:
    x = x.at[3].set(jnp.nan)
  else:
    weights = (weights[0].at[:, 0].set(jnp.nan), weights[1])
  output = op_inputs.first(mlp_lib.mlp)(weights, x, cotangent, direction)[0]
  expected = jnp.zeros(200, bool).at[3].set(True) if place else jnp.ones(200)
  np.testing.assert_array_equal(jnp.isnan(output).all(axis=1), expected)


@pytest.mark.parametrize(
    "sizes", [(129, 16, 4), (8, 256, 4), (4, 8, 8, 8, 8, 8, 4), (0, 16, 4)]
)
def test_other_shapes_are_the_definition_s(sizes, assert_close):
  arrays = op_inputs.mlp(sizes, 5)
  text = op_inputs.first(mlp_lib.mlp).lower(*arrays).as_text()
  assert "dreamjax_mlp" not in text
  assert_close(
      op_inputs.first(mlp_lib.mlp)(*arrays),
      op_inputs.first(mlp_lib.definition)(*arrays),
  )


def test_third_derivatives_are_refused():
  weights, x, cotangent, direction = op_inputs.mlp(SIZES, 2)
  second = op_inputs.second(mlp_lib.mlp)
  loss = lambda x: jnp.sum(second(weights, x, cotangent, direction)[0][0])
  with pytest.raises(Exception, match="(?i)differentiat"):
    jax.grad(loss)(x)


@pytest.mark.parametrize(
    "weights, x, error, message",
    [
        ([], np.zeros((5, 3), "f4"), ValueError, "weights is empty"),
        (
            [np.zeros((3, 4), "f4")],
            np.zeros((5, 3), "f8"),
            TypeError,
            "x is float64",
        ),
        (
            [np.zeros((3, 4), "f2")],
            np.zeros((5, 3), "f4"),
            TypeError,
            r"weights\[0\] is float16",
        ),
        ([[[1.0]]], np.zeros((5, 1), "f4"), TypeError, "of type list"),
        (
            [np.zeros((2, 4), "f4")],
            np.zeros((5, 3), "f4"),
            ValueError,
            r"weights\[0\] is float32\[2, 4\], want float32\[C=3, O\]",
        ),
        (
            [np.zeros((3, 4), "f4"), np.zeros((5, 2), "f4")],
            np.zeros((5, 3), "f4"),
            ValueError,
            r"weights\[1\] is float32\[5, 2\], want float32\[H1=4, O\]",
        ),
        (
            [np.zeros((2, 3, 4), "f4")],
            np.zeros((5, 3), "f4"),
            ValueError,
            "want float32",
        ),
    ],
)
def test_wrong_arguments_are_named(weights, x, error, message):
  with pytest.raises(error, match=message):
    mlp_lib.mlp(weights, x)
