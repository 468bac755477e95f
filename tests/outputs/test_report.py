"""A finished scene becomes pictures, a turntable and meshes."""

import builtins

import numpy as np
from PIL import Image
import pytest
import trimesh

from dreamjax import cameras
from dreamjax import config as config_lib
from dreamjax.outputs import mesh
from dreamjax.outputs import report
from dreamjax.outputs import sheet
from dreamjax.outputs import turntable

RADIUS = 0.6
SIZE = 33  # odd: video sides must be even
OUTPUT = config_lib.OutputConfig(
    mesh_resolution=24, mesh_faces=600, turntable_frames=7
)


def query(position):
  inside = RADIUS - np.linalg.norm(position, axis=-1)
  return 1e3 * (inside > 0), np.tile([0.9, 0.1, 0.1], (len(position), 1))


def render_views(camera):
  """A ball painted by its normal, white where it is not."""
  rays = cameras.camera_rays(camera, SIZE, SIZE)
  origin, direction = np.asarray(rays.origin), np.asarray(rays.direction)
  middle = (origin * direction).sum(-1)
  square = middle**2 - (origin**2).sum(-1) + RADIUS**2
  hit = square > 0
  point = origin - (middle + np.sqrt(square.clip(0)))[:, None] * direction
  shape = (len(camera.fov), SIZE, SIZE)
  normal = np.where(hit[:, None], point / RADIUS, 0).reshape(*shape, 3)
  color = np.where(hit.reshape(*shape, 1), (normal + 1) / 2, 1.0)
  return sheet.Views(color, color, normal, hit.reshape(shape).astype(float))


def write_all(folder):
  return [
      *report.write_pictures(render_views, OUTPUT, folder, "a ball"),
      *report.write_meshes(query, OUTPUT, 1.0, folder, "a ball"),
  ]


def without_encoder(monkeypatch):
  real = builtins.__import__

  def fail(name, *arguments, **named):
    if name == "imageio_ffmpeg":
      raise ImportError(name)
    return real(name, *arguments, **named)

  monkeypatch.setattr(builtins, "__import__", fail)


def test_every_file_is_there_and_opens(tmp_path, monkeypatch):
  without_encoder(monkeypatch)
  written = write_all(tmp_path)
  names = [path.name for path, _ in written]
  assert names == ["sheet.png", "turntable.webp", "mesh.glb", "mesh.obj"]
  assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
  assert trimesh.load(tmp_path / "mesh.glb", force="mesh").is_volume
  with Image.open(tmp_path / "turntable.webp") as video:
    assert video.n_frames == 7
  with Image.open(tmp_path / "sheet.png") as picture:
    assert picture.width > 9 * 128 and picture.height > 4 * 128


def test_an_empty_scene_writes_no_mesh(tmp_path):
  with pytest.raises(mesh.EmptyScene):
    report.write_meshes(
        lambda x: (np.zeros(len(x)), x), OUTPUT, 1.0, tmp_path, "nothing"
    )
  assert not list(tmp_path.iterdir())


def test_the_same_scene_gives_the_same_bytes(tmp_path):
  for name in ("a", "b"):
    (tmp_path / name).mkdir()
    written = write_all(tmp_path / name)
  for path, _ in written:
    other = tmp_path / "a" / path.name
    assert path.read_bytes() == other.read_bytes(), path.name


def test_an_encoder_writes_every_frame(tmp_path):
  encoder = pytest.importorskip("imageio_ffmpeg")
  path = turntable.write_turntable(tmp_path, render_views, 7, 20)
  assert path.name == "turntable.mp4"
  frames, _ = encoder.count_frames_and_secs(str(path))
  assert frames == 7


def test_an_encoder_that_fails_says_why_and_leaves_no_file(
    tmp_path, monkeypatch
):
  monkeypatch.setattr(turntable, "_encoder", lambda: "false")
  with pytest.raises(OSError, match="false ended with status 1"):
    turntable.write_turntable(tmp_path, render_views, 2, 20)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 3, 4])
def test_views_come_in_order_from_calls_of_one_size(count):
  sizes = set()

  def remember(camera):
    sizes.add(len(camera.fov))
    shape = (len(camera.fov), 2, 2)
    value = np.asarray(camera.azimuth)[:, None, None] * np.ones(shape)
    color = np.repeat(value[..., None], 3, axis=-1)
    return sheet.Views(color, color, color, value)

  azimuth = np.linspace(0, 1, count)
  views = sheet.render_all(remember, sheet.orbit(azimuth, 0.0))
  np.testing.assert_allclose(views.opacity[:, 0, 0], azimuth, atol=1e-6)
  assert views.color.shape == (count, 2, 2, 3)
  assert sizes == {sheet.VIEWS_PER_CALL}


def test_output_cameras_see_the_whole_unit_ball():
  camera = sheet.orbit(np.zeros(1), 0.0)
  distance = np.linalg.norm(camera.origin[0])
  np.testing.assert_allclose(np.sin(camera.fov[0] / 2), 1 / distance, rtol=1e-6)


def test_normals_become_colors_on_white():
  normal = np.array([[2.0, 0, 0], [0, 0, -1.0], [0, 0, 0]])
  colors = sheet.normal_colors(normal, np.array([1.0, 1.0, 0.0]))
  np.testing.assert_allclose(
      colors, [[1, 0.5, 0.5], [0.5, 0.5, 0], [1, 1, 1]]
  )


def test_a_preview_is_refreshed_in_place(tmp_path):
  for step in ("step 1", "step 2"):
    sheet.write_preview(tmp_path / "progress.png", render_views, step)
  assert [p.name for p in tmp_path.iterdir()] == ["progress.png"]
