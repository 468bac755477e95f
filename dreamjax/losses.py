"""Regularisers of the rendered scene; each is a mean over rays.

Notation: R rays, M packed samples; weights are those of compositing.
"""

from jax import lax
import jax.numpy as jnp

# Rays fainter than this have no depth to speak of (threestudio's mask).
SEEN = 0.5


def orientation(weight, facing, num_rays):
  """Surfaces seen from behind (Ref-NeRF, Eq. 11; DreamFusion, appendix A.2).

  The weights are constants here: otherwise the scene would rather shrink than
  turn its normals.

  Args:
    weight: f32[M].
    facing: f32[M], normal times ray direction; positive from behind.
    num_rays: R.
  Returns:
    f32[], mean over rays of the sum of weight max(0, facing)^2.
  """
  behind = jnp.maximum(facing, 0.0)
  return jnp.sum(lax.stop_gradient(weight) * behind**2) / num_rays


def opacity(opacity_ray):
  """How much the image is covered (DreamFusion, appendix A.3).

  Args:
    opacity_ray: f32[R], in [0, 1].
  Returns:
    f32[], mean of sqrt(opacity^2 + 0.01).
  """
  return jnp.mean(jnp.sqrt(opacity_ray**2 + 0.01))


def entropy(opacity_ray):
  """How undecided rays are between object and background, in nats.

  Args:
    opacity_ray: f32[R], in [0, 1].
  Returns:
    f32[], mean binary entropy, in [0, log 2].
  """
  # The slope is infinite at both ends; inside these it is below 12.
  inside = jnp.clip(opacity_ray, 1e-5, 1 - 1e-5)
  return -jnp.mean(
      inside * jnp.log(inside) + (1 - inside) * jnp.log1p(-inside)
  )


def z_variance(first, second, opacity_ray):
  """Thickness of what rays see (HiFA, Eq. 12).

  Args:
    first: f32[R], sum of weight z. The result does not depend on where z is
      counted from; near the surface float32 loses least.
    second: f32[R], sum of weight z^2.
    opacity_ray: f32[R], sum of weight; rays below `SEEN` count as thin.
  Returns:
    f32[], mean over all rays of the variance of z under normalised weights.
  """
  seen = opacity_ray > SEEN
  total = jnp.where(seen, opacity_ray, 1.0)
  variance = second / total - (first / total) ** 2
  return jnp.mean(jnp.where(seen, variance, 0.0))
