"""All files that a finished scene becomes."""

import pathlib

from dreamjax import config as config_lib
from dreamjax.outputs import gltf
from dreamjax.outputs import mesh
from dreamjax.outputs import sheet
from dreamjax.outputs import turntable


def write_all(
    query, render_views, output: config_lib.OutputConfig, bound, folder, title
):
  """Writes sheet.png, the turntable, mesh.glb and mesh.obj.

  Pictures come first: an empty scene has no mesh, but can be looked at.

  Args:
    query: see mesh.extract.
    render_views: see sheet.render_all.
    output: config.OutputConfig.
    bound: radius of the ball that holds the scene, units.
    folder: where to; it must exist.
    title: the prompt.
  Returns:
    List of (path, what it is), in the order written.
  Raises:
    mesh.EmptyScene: there is no surface; the pictures are written.
  """
  return [
      *write_pictures(render_views, output, folder, title),
      *write_meshes(query, output, bound, folder, title),
  ]


def write_pictures(
    render_views, output: config_lib.OutputConfig, folder, title
):
  """Writes sheet.png and the turntable; arguments as in `write_all`."""
  path = pathlib.Path(folder) / "sheet.png"
  sheet.write_sheet(path, render_views, title)
  video = turntable.write_turntable(
      folder, render_views, output.turntable_frames, output.frames_per_second
  )
  return [
      (path, "eight sides and the view from above"),
      (video, f"one turn in {output.turntable_frames} frames"),
  ]


def write_meshes(
    query, output: config_lib.OutputConfig, bound, folder, title
):
  """Writes mesh.glb and mesh.obj; arguments as in `write_all`."""
  surface = mesh.extract(
      query,
      bound=bound,
      resolution=output.mesh_resolution,
      threshold=output.mesh_density,
      max_faces=output.mesh_faces,
  )
  folder = pathlib.Path(folder)
  gltf.write_glb(folder / "mesh.glb", surface, title)
  gltf.write_obj(folder / "mesh.obj", surface)
  size = f"{len(surface.faces)} triangles, vertex colours"
  return [
      (folder / "mesh.glb", f"mesh for viewers and engines, {size}"),
      (folder / "mesh.obj", f"mesh for editors, {size}"),
  ]
