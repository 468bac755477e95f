"""Where the object is looked at from: cameras, their distributions, rays.

The world is right-handed with +z up. Azimuth 0 stands on +x, in front of the
object, and grows towards +y, the object's own left. V views, R = V H W rays.
"""

from typing import NamedTuple

import jax
from jax import random
import jax.numpy as jnp

from dreamjax import config as config_lib

DISTANCE_UNITS = ("scene", "frame")
FOV_SCALES = ("angle", "focal")


class Camera(NamedTuple):
  """Pinhole cameras.

  Attributes:
    origin: f32[V, 3], units.
    rotation: f32[V, 3, 3], whose columns are right, up and backward; a camera
      looks along -backward.
    fov: f32[V], vertical field of view, radians.
    azimuth: f32[V], in (-pi, pi]; before any jitter.
    elevation: f32[V], in [-pi / 2, pi / 2]; before any jitter.
  """

  origin: jax.Array
  rotation: jax.Array
  fov: jax.Array
  azimuth: jax.Array
  elevation: jax.Array


class Rays(NamedTuple):
  """Half lines, view-major, then rows from the top, then columns.

  Attributes:
    origin: f32[R, 3], units.
    direction: f32[R, 3], of length one.
  """

  origin: jax.Array
  direction: jax.Array


def _direction(azimuth, elevation):
  """f32[..., 3], from the origin towards a camera."""
  return jnp.stack([
      jnp.cos(elevation) * jnp.cos(azimuth),
      jnp.cos(elevation) * jnp.sin(azimuth),
      jnp.sin(elevation),
  ], axis=-1)


def _unit(vector):
  return vector / jnp.linalg.norm(vector, axis=-1, keepdims=True)


def _look_at(origin, target, up, up_at_pole):
  """f32[..., 3, 3], rotation of cameras at `origin` that see `target` centred.

  Args:
    origin: f32[..., 3].
    target: f32[..., 3], another point.
    up: f32[..., 3], wanted up, of any length.
    up_at_pole: f32[..., 3], taken where `up` is parallel to the line of sight.
  """
  backward = _unit(origin - target)
  sideways = jnp.cross(_unit(up), backward)
  # A thousandth of a radian: below it float32 leaves the roll to chance.
  at_pole = jnp.sum(sideways**2, axis=-1, keepdims=True) < 1e-6
  sideways = jnp.where(at_pole, jnp.cross(up_at_pole, backward), sideways)
  right = _unit(sideways)
  return jnp.stack([right, jnp.cross(backward, right), backward], axis=-1)


def _place(azimuth, elevation, fov, distance, shift, target, up_shift):
  """Cameras on a sphere around the origin, then displaced.

  Args:
    azimuth: f32[V], radians.
    elevation: f32[V], radians.
    fov: f32[V], radians.
    distance: f32[V], units.
    shift: f32[V, 3], added to the position.
    target: f32[V, 3], point looked at.
    up_shift: f32[V, 3], added to the up vector +z.
  Returns:
    Camera.
  """
  origin = distance[:, None] * _direction(azimuth, elevation) + shift
  # The way a camera moves when its elevation grows stays defined at the pole.
  up_at_pole = _direction(azimuth, elevation + jnp.pi / 2)
  up = up_shift + jnp.array([0.0, 0.0, 1.0], jnp.float32)
  rotation = _look_at(origin, target, up, up_at_pole)
  wrapped = jnp.pi - jnp.mod(jnp.pi - azimuth, 2 * jnp.pi)
  return Camera(origin, rotation, fov, wrapped, elevation)


def orbit(azimuth, elevation, fov, distance):
  """Cameras on a sphere around the origin, looking at it.

  Args:
    azimuth: f32[V] or a number, radians; the four arguments broadcast.
    elevation: f32[V] or a number, radians.
    fov: f32[V] or a number, vertical field of view, radians.
    distance: f32[V] or a number, units.
  Returns:
    Camera.
  """
  azimuth, elevation, fov, distance = jnp.broadcast_arrays(*(
      jnp.atleast_1d(jnp.asarray(value, jnp.float32))
      for value in (azimuth, elevation, fov, distance)
  ))
  still = jnp.zeros(azimuth.shape + (3,), jnp.float32)
  return _place(azimuth, elevation, fov, distance, still, still, still)


def frame_distance(fov):
  """Distance at which the unit ball just fills a field of view (radians)."""
  return 1.0 / jnp.sin(fov / 2)


def _between(fraction, ends):
  return ends[0] + fraction * (ends[1] - ends[0])


def _fov(fraction, config):
  """f32[], radians; `fraction` f32[] is uniform in [0, 1)."""
  ends = jnp.radians(jnp.array(config.fov_degrees, jnp.float32))
  if config.fov_uniform_in == "angle":
    return _between(fraction, ends)
  # The focal length in image heights is 1 / (2 tan(fov / 2)).
  focal = _between(fraction, 0.5 / jnp.tan(ends / 2))
  return 2 * jnp.arctan(0.5 / focal)


def _elevation(coin, fraction, config):
  """f32[], radians; uniform in area on the sphere, or in angle.

  Both f32[] are uniform in [0, 1); the coin says which of the two.
  """
  ends = jnp.radians(jnp.array(config.elevation_degrees, jnp.float32))
  by_area = jnp.arcsin(jnp.clip(_between(fraction, jnp.sin(ends)), -1.0, 1.0))
  return jnp.where(
      coin < config.elevation_area_probability,
      by_area,
      _between(fraction, ends),
  )


def sample_cameras(key, config, indices, num_views):
  """Random training cameras (DreamFusion, appendix A.2).

  The azimuth is stratified: the circle is turned by one angle that all views
  of the step share, cut into `num_views` equal strata, and each view draws
  inside its own. All else is drawn view by view, from the view's global
  number, so that it does not matter which device computes which views.

  Args:
    key: the step's key for cameras.
    config: config.CameraConfig.
    indices: i32[V], global numbers of the views wanted, in [0, num_views).
    num_views: views of the step over all devices.
  Returns:
    Camera of V views.
  Raises:
    ValueError: the config names an unknown unit or scale.
  """
  _check(config)
  key_turn, key_views = random.split(key)
  turn = random.uniform(key_turn)

  def sample(index):
    # Few draws of many numbers: each draw is as much code as a layer.
    key_uniform, key_normal = random.split(random.fold_in(key_views, index))
    number = random.uniform(key_uniform, (8,))
    target, up = random.normal(key_normal, (2, 3))
    fov = _fov(number[0], config)
    distance = _between(number[1], config.distance)
    if config.distance_unit == "frame":
      distance = distance * frame_distance(fov)
    stratum = index.astype(jnp.float32) + number[2]
    azimuth = _between(
        jnp.mod(turn + stratum / num_views, 1.0),
        jnp.radians(jnp.array(config.azimuth_degrees, jnp.float32)),
    )
    return (
        azimuth,
        _elevation(number[3], number[4], config),
        fov,
        distance,
        config.position_jitter * (2 * number[5:] - 1),
        config.target_jitter * target,
        config.up_jitter * up,
    )

  return _place(*jax.vmap(sample)(jnp.asarray(indices, jnp.int32)))


def _check(config: config_lib.CameraConfig):
  if config.distance_unit not in DISTANCE_UNITS:
    raise ValueError(
        f"CameraConfig: distance_unit is {config.distance_unit!r}, want one of"
        f" {DISTANCE_UNITS}."
    )
  if config.fov_uniform_in not in FOV_SCALES:
    raise ValueError(
        f"CameraConfig: fov_uniform_in is {config.fov_uniform_in!r}, want one"
        f" of {FOV_SCALES}."
    )


def camera_rays(camera, height, width):
  """One ray through the centre of every pixel.

  Args:
    camera: Camera of V views.
    height: pixels per column; the field of view spans it.
    width: pixels per row.
  Returns:
    Rays, R = V height width.
  """
  # Pixel centres in units of the half image height, rows from the top.
  rows = 1.0 - (2.0 * jnp.arange(height, dtype=jnp.float32) + 1.0) / height
  columns = (2.0 * jnp.arange(width, dtype=jnp.float32) + 1.0 - width) / height
  slope = jnp.tan(camera.fov / 2)[:, None, None]
  shape = camera.fov.shape + (height, width)
  local = jnp.stack([
      jnp.broadcast_to(slope * columns, shape),
      jnp.broadcast_to(slope * rows[:, None], shape),
      jnp.full(shape, -1.0, jnp.float32),
  ], axis=-1)
  direction = _unit(jnp.einsum(
      "vij,vhwj->vhwi", camera.rotation, local, precision="highest"
  ))
  origin = jnp.broadcast_to(camera.origin[:, None, None, :], direction.shape)
  return Rays(origin.reshape(-1, 3), direction.reshape(-1, 3))
