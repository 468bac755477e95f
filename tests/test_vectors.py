"""Products of vectors, and that they leave no sum to XLA."""

import jax
from jax import random
import jax.numpy as jnp
import numpy as np

from dreamjax import vectors

A, B = random.normal(random.key(0), (2, 4, 5, 3))


def test_products_are_those_of_linear_algebra():
  np.testing.assert_allclose(
      vectors.dot(A, B), np.einsum("ijk,ijk->ij", A, B), rtol=1e-5, atol=1e-6
  )
  np.testing.assert_array_equal(
      vectors.scale(A[..., 0], B), A[..., :1] * B
  )


def test_joined_axes_split_again_and_each_derives_the_other():
  def there_and_back(a):
    return vectors.join(tuple(reversed(vectors.split(a))))

  np.testing.assert_array_equal(there_and_back(A), A[..., ::-1])
  _, pull = jax.vjp(there_and_back, A)
  np.testing.assert_array_equal(pull(B)[0], B[..., ::-1])
  twice = jax.grad(lambda a: jnp.sum(jax.grad(
      lambda a: jnp.sum(there_and_back(a) ** 3)
  )(a)))(A)
  np.testing.assert_allclose(twice, 6 * A, rtol=1e-6)


def test_derivatives_sum_over_no_axis_and_pad_no_array():
  def loss(a, b):
    normal = vectors.scale(jax.lax.rsqrt(vectors.dot(a, a)), a)
    return vectors.dot(normal, b)

  text = str(jax.make_jaxpr(
      lambda a, b, g: jax.vjp(loss, a, b)[1](g)
  )(A, B, jnp.ones((4, 5))))
  assert "reduce_sum" not in text
  assert " pad[" not in text
