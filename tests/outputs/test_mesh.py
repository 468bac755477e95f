"""Meshes are closed, outward, in place, and painted from the field."""

import numpy as np
import pytest
import trimesh

from dreamjax.outputs import mesh

DENSE = 400.0  # density inside, 1/unit
THRESHOLD = 10.0


def ball(center, radius):
  """A field with soft walls whose density is `THRESHOLD` at the radius."""
  sharpness = 40.0
  at_wall = np.log(DENSE / THRESHOLD - 1) / sharpness

  def query(position):
    distance = np.linalg.norm(position - np.array(center), axis=-1)
    inside = radius - distance
    density = DENSE / (1 + np.exp(-sharpness * (inside - at_wall).clip(-1, 1)))
    return density, np.tile([0.8, 0.4, 0.2], (len(position), 1))

  return query


def together(*fields):
  def query(position):
    densities, albedos = zip(*(field(position) for field in fields))
    return sum(densities), albedos[0]

  return query


def extract(query, resolution=48, max_faces=50_000, bound=1.0):
  return mesh.extract(
      query, bound=bound, resolution=resolution, threshold=THRESHOLD,
      max_faces=max_faces,
  )


def as_trimesh(surface):
  return trimesh.Trimesh(surface.vertices, surface.faces, process=False)


def test_a_ball_comes_out_with_its_place_and_volume():
  surface = extract(ball([0.2, -0.1, 0.1], 0.5))
  volume = mesh.signed_volume(surface.vertices, surface.faces).sum()
  # Half a cell of 1/24 at the wall would be 13 percent of the volume.
  np.testing.assert_allclose(volume, 4 / 3 * np.pi * 0.5**3, rtol=0.03)
  np.testing.assert_allclose(
      surface.vertices.mean(axis=0), [0.2, -0.1, 0.1], atol=0.01
  )


def test_a_ball_is_closed_and_its_outside_is_outside():
  surface = extract(ball([0, 0, 0], 0.5))
  assert as_trimesh(surface).is_volume
  outward = (surface.normals * surface.vertices).sum(-1)
  np.testing.assert_allclose(outward, 0.5, atol=0.02)


def test_arrays_have_the_promised_types():
  surface = extract(ball([0, 0, 0], 0.5))
  assert [x.dtype for x in surface] == [
      np.float32, np.int32, np.float32, np.float32
  ]
  assert len(surface.colors) == len(surface.normals) == len(surface.vertices)


def test_vertices_take_the_albedo_from_inside():
  field = ball([0, 0, 0], 0.5)

  def unpainted_outside(position):
    density, albedo = field(position)
    outside = np.linalg.norm(position, axis=-1) > 0.495
    return density, np.where(outside[:, None], 1.0, albedo)

  surface = extract(unpainted_outside)
  np.testing.assert_allclose(
      surface.colors, np.broadcast_to([0.8, 0.4, 0.2], surface.colors.shape),
      rtol=1e-6,
  )


def test_what_reaches_the_border_is_closed_there():
  surface = extract(lambda x: (np.full(len(x), DENSE), np.zeros((len(x), 3))))
  assert as_trimesh(surface).is_volume
  reach = np.linalg.norm(surface.vertices, axis=-1)
  np.testing.assert_allclose(reach, 1.0, atol=1.5 * 2 / 48)


def test_a_floater_goes_and_a_second_part_stays():
  body = ball([0, 0, -0.4], 0.35)
  head = ball([0, 0, 0.4], 0.2)
  speck = ball([0.7, 0, 0], 0.06)
  surface = extract(together(body, head, speck))
  pieces = as_trimesh(surface).split()
  assert len(pieces) == 2
  assert surface.vertices[:, 0].max() < 0.5


def test_the_wall_of_an_inner_hole_goes():
  outer, inner = ball([0, 0, 0], 0.6), ball([0, 0, 0], 0.3)

  def shell(position):
    density, albedo = outer(position)
    return np.maximum(density - inner(position)[0], 0), albedo

  surface = extract(shell)
  assert np.linalg.norm(surface.vertices, axis=-1).min() > 0.5


@pytest.mark.parametrize("max_faces", [4_000, 400])
def test_a_simplified_ball_has_few_faces_and_stays_closed(max_faces):
  surface = extract(ball([0, 0, 0], 0.5), max_faces=max_faces)
  assert len(surface.faces) <= max_faces
  solid = as_trimesh(surface)
  assert solid.is_volume
  np.testing.assert_allclose(solid.volume, 4 / 3 * np.pi * 0.5**3, rtol=0.05)


def test_foam_becomes_a_closed_mesh_of_the_wanted_size():
  def foam(position):
    noise = np.random.default_rng(0).random(len(position))
    return 2.5 * THRESHOLD * noise, np.zeros((len(position), 3))

  surface = extract(foam, resolution=32, max_faces=3_000)
  assert len(surface.faces) <= 3_000
  assert as_trimesh(surface).is_watertight


def test_a_scene_that_only_touches_the_threshold_is_nearly_empty():
  def steps(position):
    inside = np.abs(position).max(axis=-1) < 0.4
    return np.where(inside, THRESHOLD, 0.0), np.zeros((len(position), 3))

  with pytest.raises(mesh.EmptyScene, match="nearly empty"):
    extract(steps)  # the blur leaves everything just below


def test_the_bound_scales_the_mesh():
  field = ball([0, 0, 0], 0.5)
  surface = extract(lambda x: field(x / 2), bound=2.0)
  reach = np.linalg.norm(surface.vertices, axis=-1)
  np.testing.assert_allclose(reach, 1.0, atol=0.05)


def test_the_field_is_always_called_with_the_same_number_of_points():
  counts = set()

  def query(position):
    counts.add(position.shape)
    return ball([0, 0, 0], 0.5)(position)

  extract(query, resolution=64)
  assert len(counts) == 1


def test_an_empty_scene_says_what_to_do():
  with pytest.raises(mesh.EmptyScene, match="largest density is 0.5.*Lower"):
    extract(lambda x: (np.full(len(x), 0.5), np.zeros((len(x), 3))))


def test_a_density_that_is_not_a_number_is_named():
  def query(position):
    density, albedo = ball([0, 0, 0], 0.5)(position)
    return np.where(position[:, 0] > 0, np.nan, density), albedo

  with pytest.raises(ValueError, match="densities are NaN or infinite"):
    extract(query)


@pytest.mark.parametrize(
    "change", [{"resolution": 1}, {"threshold": 0.0}, {"max_faces": 3}]
)
def test_arguments_out_of_range_are_refused(change):
  arguments = dict(bound=1.0, resolution=8, threshold=1.0, max_faces=100)
  with pytest.raises(ValueError, match="want at least 2"):
    mesh.extract(ball([0, 0, 0], 0.5), **(arguments | change))


def test_open_and_inconsistent_surfaces_are_not_closed():
  tetrahedron = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
  assert mesh.is_closed(tetrahedron)
  assert not mesh.is_closed(tetrahedron[:3])
  turned = tetrahedron.copy()
  turned[0] = turned[0, ::-1]
  assert not mesh.is_closed(turned)
  assert not mesh.is_closed(np.concatenate([tetrahedron, tetrahedron]))


def test_a_unit_tetrahedron_has_a_sixth_of_a_cube():
  vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
  faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
  np.testing.assert_allclose(mesh.signed_volume(vertices, faces).sum(), 1 / 6)
