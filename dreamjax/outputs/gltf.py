"""Mesh files: binary glTF 2.0 and Wavefront OBJ.

Both have +y up and the object's front towards +z, as glTF asks (Khronos,
glTF 2.0 specification, 3.4). The world here has +z up and its front at +x, so
(x, y, z) is written as (y, z, x): a rotation by 120 degrees, no mirror.
"""

import json
import struct

import numpy as np

from dreamjax.outputs import files

# Numbers of the glTF specification.
_UNSIGNED_INT, _FLOAT = 5125, 5126
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_MAGIC, _JSON_CHUNK, _BINARY_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942


def to_gltf_axes(vector):
  """World f32[N, 3], z up and front +x, with glTF's y up and front +z."""
  return np.asarray(vector)[:, [1, 2, 0]]


def light_of(color):
  """Linear light of colours as a screen shows them (IEC 61966-2-1).

  Scenes are trained on pixel values, which screens take for sRGB, while
  glTF's COLOR_0 is linear light: without this a mesh looks paler in a viewer
  than in its own renderings.

  Args:
    color: f32[..., 3] in [0, 1].
  Returns:
    f32[..., 3] in [0, 1].
  """
  color = np.asarray(color, np.float32)
  return np.where(
      color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4
  ).astype(np.float32)


def write_glb(path, mesh, name):
  """Writes binary glTF atomically; the same mesh gives the same bytes.

  Args:
    path: str or Path.
    mesh: mesh.Mesh.
    name: what the object is called in an editor.
  """
  columns = [
      ("faces", mesh.faces.reshape(-1), "<u4"),
      ("POSITION", to_gltf_axes(mesh.vertices), "<f4"),
      ("NORMAL", to_gltf_axes(mesh.normals), "<f4"),
      ("COLOR_0", light_of(mesh.colors), "<f4"),
  ]
  columns = [
      (key, np.ascontiguousarray(values, kind)) for key, values, kind in columns
  ]
  header = json.dumps(
      _document(columns, name), separators=(",", ":"), ensure_ascii=True
  ).encode()
  header += b" " * (-len(header) % 4)
  binary = b"".join(values.tobytes() for _, values in columns)
  files.write_bytes(path, b"".join([
      struct.pack("<III", _MAGIC, 2, 28 + len(header) + len(binary)),
      struct.pack("<II", len(header), _JSON_CHUNK), header,
      struct.pack("<II", len(binary), _BINARY_CHUNK), binary,
  ]))


def _document(columns, name):
  """The JSON part; `columns` are (name, array) in the order of the buffer."""
  views, accessors, offset = [], [], 0
  for key, values in columns:
    index = key == "faces"
    views.append({
        "buffer": 0,
        "byteOffset": offset,
        "byteLength": values.nbytes,
        "target": _ELEMENT_ARRAY_BUFFER if index else _ARRAY_BUFFER,
    })
    accessors.append({
        "bufferView": len(accessors),
        "componentType": _UNSIGNED_INT if index else _FLOAT,
        "count": len(values),
        "type": "SCALAR" if index else "VEC3",
    })
    if key == "POSITION":
      accessors[-1]["min"] = values.min(axis=0).tolist()
      accessors[-1]["max"] = values.max(axis=0).tolist()
    offset += values.nbytes
  material = {
      "name": "painted",
      "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9},
  }
  primitive = {
      "attributes": {key: i for i, (key, _) in enumerate(columns) if i},
      "indices": 0,
      "material": 0,
  }
  return {
      "asset": {"version": "2.0", "generator": "dreamjax"},
      "scene": 0,
      "scenes": [{"nodes": [0]}],
      "nodes": [{"mesh": 0, "name": name}],
      "meshes": [{"name": name, "primitives": [primitive]}],
      "materials": [material],
      "buffers": [{"byteLength": offset}],
      "bufferViews": views,
      "accessors": accessors,
  }


def write_obj(path, mesh):
  """Writes Wavefront OBJ with vertex colours (v x y z r g b), atomically."""
  vertex = np.concatenate([to_gltf_axes(mesh.vertices), mesh.colors], axis=1)
  lines = ["# y up, front +z; v is x y z red green blue, colours as on screen"]
  lines += ["v %.6f %.6f %.6f %.4f %.4f %.4f" % tuple(row) for row in vertex]
  lines += [
      "vn %.4f %.4f %.4f" % tuple(row) for row in to_gltf_axes(mesh.normals)
  ]
  lines += ["f %d//%d %d//%d %d//%d" % (a, a, b, b, c, c)
            for a, b, c in mesh.faces + 1]
  files.write_bytes(path, ("\n".join(lines) + "\n").encode("ascii"))
