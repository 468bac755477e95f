"""All files that a finished scene becomes."""

import pathlib

from dreamjax import config as config_lib
from dreamjax.outputs import gltf
from dreamjax.outputs import mesh
from dreamjax.outputs import sheet
from dreamjax.outputs import turntable


def write_pictures(
    render_views, output: config_lib.OutputConfig, folder, title
):
  """Writes sheet.png and the turntable.

  Args:
    render_views: see sheet.render_all.
    output: config.OutputConfig.
    folder: where to; it must exist.
    title: the prompt.
  Returns:
    List of (path, what it is), in the order written.
  """
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
  """Writes mesh.glb and mesh.obj.

  Args:
    query: see mesh.extract.
    output: config.OutputConfig.
    bound: radius of the ball that holds the scene, units.
    folder: where to; it must exist.
    title: the prompt; the name of the object in an editor.
  Returns:
    List of (path, what it is), in the order written.
  Raises:
    mesh.EmptyScene: there is no surface.
  """
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
