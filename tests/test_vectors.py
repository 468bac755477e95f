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


def test_derivatives_have_no_sum_over_an_axis():
  def loss(a, b):
    normal = vectors.scale(jax.lax.rsqrt(vectors.dot(a, a)), a)
    return vectors.dot(normal, b)

  text = str(jax.make_jaxpr(
      lambda a, b, g: jax.vjp(loss, a, b)[1](g)
  )(A, B, jnp.ones((4, 5))))
  assert "reduce_sum" not in text
