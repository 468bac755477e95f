"""Mesh files hold the mesh, turned to the axes of the format."""

import json
import struct

import numpy as np
import pytest
import trimesh

from dreamjax.outputs import gltf
from dreamjax.outputs import mesh


@pytest.fixture
def surface():
  """A tetrahedron whose tip points to the front, +x, and is red."""
  vertices = np.array(
      [[1, 0, 0], [-1, 1, 0], [-1, -1, 0], [-1, 0, 1]], np.float32
  )
  faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.int32)
  if mesh.signed_volume(vertices, faces).sum() < 0:
    faces = faces[:, ::-1]
  colors = np.array(
      [[1, 0, 0], [0.5, 0.5, 0.5], [0, 0, 1], [0.2, 0.03, 0]], np.float32
  )
  normals = mesh.vertex_normals(vertices, faces).astype(np.float32)
  return mesh.Mesh(vertices, faces, colors, normals)


def load(path):
  (solid,) = trimesh.load_scene(path, process=False).geometry.values()
  return solid


@pytest.fixture(params=["mesh.glb", "mesh.obj"])
def loaded(request, surface, tmp_path):
  path = tmp_path / request.param
  if path.suffix == ".glb":
    gltf.write_glb(path, surface, "a red tip")
  else:
    gltf.write_obj(path, surface)
  return load(path)


def test_the_front_is_plus_z_and_up_is_plus_y(loaded):
  np.testing.assert_allclose(loaded.vertices[0], [0, 0, 1])
  np.testing.assert_allclose(loaded.vertices[3], [0, 1, -1])


def test_the_rotation_is_no_mirror():
  basis = gltf.to_gltf_axes(np.eye(3))
  np.testing.assert_allclose(np.linalg.det(basis), 1)


def test_a_closed_mesh_stays_closed_and_outward(surface, loaded):
  assert loaded.is_volume
  np.testing.assert_allclose(
      loaded.volume, mesh.signed_volume(surface.vertices, surface.faces).sum(),
      rtol=1e-5,
  )


def test_normals_are_stored(surface, loaded):
  np.testing.assert_allclose(
      loaded.vertex_normals, gltf.to_gltf_axes(surface.normals), atol=1e-4
  )


def test_glb_stores_linear_light(surface, tmp_path):
  gltf.write_glb(tmp_path / "a.glb", surface, "a")
  stored = load(tmp_path / "a.glb").visual.vertex_attributes["color"]
  np.testing.assert_allclose(stored[0], [1, 0, 0])
  np.testing.assert_allclose(stored[1], 0.2140411, atol=1e-6)  # sRGB 0.5


def test_obj_stores_colors_as_on_screen(surface, tmp_path):
  gltf.write_obj(tmp_path / "a.obj", surface)
  colors = load(tmp_path / "a.obj").visual.vertex_colors[:, :3]
  np.testing.assert_allclose(colors, 255 * surface.colors, atol=1)


def test_light_of_inverts_the_curve_of_srgb():
  light = np.linspace(0, 1, 101)
  color = np.where(
      light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055
  )
  np.testing.assert_allclose(gltf.light_of(color), light, atol=1e-5)


def test_the_same_mesh_gives_the_same_bytes(surface, tmp_path):
  for name in ("a.glb", "b.glb"):
    gltf.write_glb(tmp_path / name, surface, "a")
  first, second = (tmp_path / n for n in ("a.glb", "b.glb"))
  assert first.read_bytes() == second.read_bytes()


def test_the_chunks_of_a_glb_fill_it_in_words_of_four(surface, tmp_path):
  gltf.write_glb(tmp_path / "a.glb", surface, "un \u00e9l\u00e8ve")
  data = (tmp_path / "a.glb").read_bytes()
  magic, version, length = struct.unpack_from("<4sII", data)
  assert (magic, version, length) == (b"glTF", 2, len(data))
  size, kind = struct.unpack_from("<I4s", data, 12)
  assert kind == b"JSON" and size % 4 == 0
  document = json.loads(data[20 : 20 + size])
  assert document["nodes"][0]["name"] == "un \u00e9l\u00e8ve"
  binary_size, kind = struct.unpack_from("<I4s", data, 20 + size)
  assert kind == b"BIN\0" and binary_size == len(data) - size - 28
  assert document["buffers"][0]["byteLength"] == binary_size
  material = document["materials"][0]
  assert material["pbrMetallicRoughness"]["metallicFactor"] == 0.0
  assert "doubleSided" not in material  # the default is false
