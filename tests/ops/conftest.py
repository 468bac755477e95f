"""What the tests of all operations share."""

import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def assert_close():
  """(actual, expected, relative): trees are equal up to sums in float32."""

  def check(actual, expected, relative=1e-5):
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
      a, b = np.asarray(a), np.asarray(b)
      assert a.shape == b.shape
      if b.size:
        # Relative to the largest number, not to each.
        largest = np.abs(b).max() + 1e-6
        np.testing.assert_allclose(a, b, atol=relative * largest)

  return check
