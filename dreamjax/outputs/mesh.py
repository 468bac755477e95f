"""From a density field to a closed triangle mesh with vertex colours.

N vertices, F faces, G samples per axis of the density grid. A face names its
vertices counter-clockwise as seen from outside.
"""

from typing import NamedTuple

import numpy as np

# Points per call of the field: one shape, so that it compiles once.
_CHUNK = 65536
# Blur of the grid in cells. The first only takes the stairs off; the next is
# tried where a surface was not closed (two parts that touch in one edge) or
# could not be simplified (foam).
_BLURS = (0.7, 1.4, 2.8)
# A separate piece is kept from this share of the largest one's volume on:
# floaters go, the parts of a snowman stay.
_SMALLEST_PIECE = 0.01
# fast-simplification's "aggressiveness", each tried if the one before it tore
# the surface; 7 is its default.
_AGGRESSIVENESS = (7, 4, 1)


class EmptyScene(RuntimeError):
  """There is no surface to make a mesh of."""


class Mesh(NamedTuple):
  """A closed surface.

  Attributes:
    vertices: f32[N, 3], world, units.
    faces: i32[F, 3].
    colors: f32[N, 3], RGB in [0, 1].
    normals: f32[N, 3], outward, of length one.
  """

  vertices: np.ndarray
  faces: np.ndarray
  colors: np.ndarray
  normals: np.ndarray


def extract(query, *, bound, resolution, threshold, max_faces):
  """The surface of a field, closed, outward, without floaters.

  Args:
    query: function of f32[N, 3] that gives density f32[N] (1/unit) and albedo
      f32[N, 3]; always called with the same N.
    bound: radius of the ball that holds the scene, units.
    resolution: cells per axis of the grid.
    threshold: density of the surface, 1/unit.
    max_faces: more triangles than this are simplified away, as far as the
      surface stays closed.
  Returns:
    Mesh.
  Raises:
    EmptyScene: the density stays below the threshold.
    ValueError: the density is NaN or infinite somewhere, or an argument is
      out of range.
  """
  if resolution < 2 or not threshold > 0 or max_faces < 4:
    raise ValueError(
        f"extract: resolution {resolution}, threshold {threshold}, max_faces"
        f" {max_faces}; want at least 2, more than 0, at least 4."
    )
  density = density_grid(query, bound, resolution)
  if density.max() < threshold:
    raise EmptyScene(
        f"The scene is empty: its largest density is {density.max():.3g}, its"
        f" surface would be at {threshold:.3g}. Lower output.mesh_density, or"
        " train longer or from another seed."
    )
  cell = 2 * bound / resolution
  for blur in _BLURS:
    vertices, faces = _surface(density, threshold, blur)
    vertices, faces = _without_small_pieces(vertices, faces)
    vertices, faces = _simplify(vertices, faces, max_faces)
    if len(faces) <= max_faces and is_closed(faces):
      break
  if not len(faces):
    raise EmptyScene(
        f"The scene is nearly empty: its largest density is {density.max():.3g}"
        f" and reaches the surface's, {threshold:.3g}, only in specks. Lower"
        " output.mesh_density, or train longer or from another seed."
    )
  vertices = cell * (vertices - (resolution / 2 + 1))  # 1: the empty rim
  normals = vertex_normals(vertices, faces)
  # Half a cell inside: on the surface itself the colour may be untrained.
  _, albedo = _query(query, vertices - 0.5 * cell * normals)
  return Mesh(
      vertices.astype(np.float32),
      faces.astype(np.int32),
      np.clip(albedo, 0, 1),
      normals.astype(np.float32),
  )


def density_grid(query, bound, resolution):
  """Density on the corners of the grid's cells, 0 outside the ball.

  Returns:
    f32[G, G, G], G = resolution + 1, over [-bound, bound]^3, index [x, y, z].
  Raises:
    ValueError: a density is NaN or infinite.
  """
  axis = np.linspace(-bound, bound, resolution + 1, dtype=np.float32)
  position = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
  inside = np.square(position).sum(-1) < bound**2
  density = np.zeros(inside.shape, np.float32)
  density[inside], _ = _query(query, position[inside])
  if not np.isfinite(density).all():
    raise ValueError(
        f"density_grid: {np.count_nonzero(~np.isfinite(density))} densities"
        " are NaN or infinite; the parameters went bad, take an earlier"
        " checkpoint."
    )
  return density


def _query(query, position):
  """Density f32[N] and albedo f32[N, 3], in calls of `_CHUNK` points."""
  density = np.empty(len(position), np.float32)
  albedo = np.empty((len(position), 3), np.float32)
  for start in range(0, len(position), _CHUNK):
    chunk = position[start : start + _CHUNK].astype(np.float32)
    count = len(chunk)
    values = query(np.pad(chunk, ((0, _CHUNK - count), (0, 0))))
    density[start : start + count] = np.asarray(values[0])[:count]
    albedo[start : start + count] = np.asarray(values[1])[:count]
  return density, albedo


def _surface(density, threshold, blur):
  """Marching cubes (Lorensen and Cline 1987; Lewiner et al. 2003).

  What is meshed is the opacity of a slab, 1 - 2^(-density / threshold), which
  is 1/2 on the surface. Unlike a density it has an end: one cell a thousand
  times as dense as the next does not pull the surface to their border.

  Returns:
    f64[N, 3] in cells, the grid beginning at 1, and i64[F, 3].
  """
  from scipy import ndimage  # late: only a run that ends needs these
  from skimage import measure

  # The empty rim closes what reaches the border.
  opacity = np.pad(1 - np.exp2(-density / threshold), 1)
  opacity = ndimage.gaussian_filter(opacity, blur, mode="constant")
  if opacity.max() <= 0.5:
    return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
  # A corner exactly on the surface would give triangles without area.
  opacity = np.where(np.abs(opacity - 0.5) < 1e-4, 0.5001, opacity)
  # "ascent" although density grows inwards: the library's left-hand rule.
  vertices, faces, _, _ = measure.marching_cubes(
      opacity, 0.5, gradient_direction="ascent"
  )
  return vertices.astype(np.float64), faces.astype(np.int64)


def signed_volume(vertices, faces):
  """f64[F], the volume between the origin and each face; positive outward."""
  a, b, c = np.moveaxis(vertices.astype(np.float64)[faces], 1, 0)
  return np.einsum("fi,fi->f", a, np.cross(b, c)) / 6


def _without_small_pieces(vertices, faces):
  """Leaves out floaters and the walls of inner holes (negative volume)."""
  from scipy import sparse
  from scipy.sparse import csgraph

  if not len(faces):
    return vertices, faces
  ends = (np.ones(2 * len(faces), bool),
          (faces[:, :2].ravel(), faces[:, 1:].ravel()))
  graph = sparse.coo_matrix(ends, (len(vertices), len(vertices)))
  _, piece = csgraph.connected_components(graph, directed=False)
  # Around a point near the surface, so that the terms do not cancel.
  volume = np.bincount(
      piece[faces[:, 0]],
      signed_volume(vertices - vertices.mean(axis=0), faces),
      minlength=piece.max() + 1,
  )
  keep = volume >= max(_SMALLEST_PIECE * volume.max(), 1e-9)
  return _without_unused(vertices, faces[keep[piece[faces[:, 0]]]])


def _without_unused(vertices, faces):
  """Leaves out vertices that no face names."""
  used, faces = np.unique(faces, return_inverse=True)
  return vertices[used], faces.reshape(-1, 3)


def is_closed(faces):
  """Whether each edge has exactly two faces, which agree on the outside."""
  edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
  size = int(edges.max(initial=0)) + 1
  there = np.sort(edges[:, 0] * size + edges[:, 1])
  back = np.sort(edges[:, 1] * size + edges[:, 0])
  return bool((there[1:] > there[:-1]).all() and (there == back).all())


def _simplify(vertices, faces, max_faces):
  """Fewer faces by edge collapse (Garland and Heckbert 1997), still closed."""
  import fast_simplification

  if len(faces) <= max_faces:
    return vertices, faces
  # The library does not check: a bad index ends the process.
  if not np.isfinite(vertices).all() or faces.max() >= len(vertices):
    raise ValueError("simplify: a vertex is not finite or an index is wrong.")
  for aggressiveness in _AGGRESSIVENESS:
    fewer = fast_simplification.simplify(
        vertices.astype(np.float32), faces.astype(np.int32),
        target_count=max_faces, agg=aggressiveness,
    )
    points, triangles = _without_unused(fewer[0], fewer[1])
    if len(triangles) and is_closed(triangles):
      return points.astype(np.float64), triangles
  return vertices, faces


def vertex_normals(vertices, faces):
  """f64[N, 3], the mean of the adjacent faces' normals, weighted by area."""
  a, b, c = np.moveaxis(vertices.astype(np.float64)[faces], 1, 0)
  area = np.cross(b - a, c - a)
  total = np.stack([
      np.bincount(
          faces.ravel(), area[:, axis].repeat(3), minlength=len(vertices)
      )
      for axis in range(3)
  ], axis=-1)
  length = np.linalg.norm(total, axis=-1, keepdims=True)
  up = [0.0, 0.0, 1.0]  # for a vertex whose faces cancel out
  return np.where(length > 0, total / np.maximum(length, 1e-30), up)
