"""Layout of a multiresolution hash grid (Müller et al. 2022)."""

import itertools
import math
from typing import NamedTuple

import numpy as np

_FEATURES = (1, 2, 4, 8)
_MAX_LEVELS = 32
_MAX_ELEMENTS = 2**31 - 1


class HashGrid(NamedTuple):
  """Layout of the levels; hashable, so that it can be static.

  Attributes:
    scales: per level, grid cells along the unit interval.
    resolutions: per level, vertices per axis.
    offsets: per level, first entry in the table.
    sizes: per level, number of entries.
    features: features per entry.
    smoothstep: whether weights are 3 f^2 - 2 f^3 of the fraction f.
  """

  scales: tuple[float, ...]
  resolutions: tuple[int, ...]
  offsets: tuple[int, ...]
  sizes: tuple[int, ...]
  features: int
  smoothstep: bool

  @property
  def num_entries(self):
    """Entries of the whole table, T."""
    return self.offsets[-1] + self.sizes[-1]

  @property
  def num_features(self):
    """Features of a point, L F."""
    return len(self.sizes) * self.features


def make_grid(
    levels,
    features,
    log2_table_size,
    base_resolution,
    max_resolution,
    smoothstep=False,
):
  """Levels of geometrically growing resolution (Instant-NGP, Eq. 2 and 3).

  The conventions are tiny-cuda-nn's: level l has scale = base b^l - 1 cells
  and ceil(scale) + 1 vertices per axis, is stored densely while its vertices
  fit into 2^log2_table_size entries, else hashed, and its size is a multiple
  of 8.

  Args:
    levels: number of levels, 1 to 32.
    features: features per level, one of 1, 2, 4, 8.
    log2_table_size: log2 of the largest number of entries of a level.
    base_resolution: vertices per axis of the coarsest level, >= 2.
    max_resolution: of the finest level, >= base_resolution.
    smoothstep: interpolate with continuous first derivatives.
  Returns:
    HashGrid.
  Raises:
    ValueError: a number is out of its range.
  """
  if not 1 <= levels <= _MAX_LEVELS:
    raise ValueError(f"make_grid: levels is {levels}, want 1 to {_MAX_LEVELS}.")
  if features not in _FEATURES:
    raise ValueError(
        f"make_grid: features is {features}, want one of {_FEATURES}."
    )
  if not 3 <= log2_table_size <= 28:
    raise ValueError(
        f"make_grid: log2_table_size is {log2_table_size}, want 3 to 28."
    )
  if not 2 <= base_resolution <= max_resolution <= 2**20:
    raise ValueError(
        f"make_grid: base_resolution is {base_resolution}, max_resolution is"
        f" {max_resolution}, want 2 <= base <= max <= 2^20."
    )
  growth = math.log2(max_resolution / base_resolution) / max(levels - 1, 1)
  scales, resolutions, offsets, sizes = [], [], [0], []
  for level in range(levels):
    # Rounded first, so that max_resolution is not missed by one vertex.
    scale = float(np.float32(base_resolution * 2 ** (level * growth) - 1))
    resolution = math.ceil(scale) + 1
    scales.append(scale)
    resolutions.append(resolution)
    sizes.append(min(-(-(resolution**3) // 8) * 8, 2**log2_table_size))
    offsets.append(offsets[-1] + sizes[-1])
  if offsets[-1] * features > _MAX_ELEMENTS:
    raise ValueError(
        f"make_grid: the table has {offsets[-1]} x {features} numbers, want at"
        f" most {_MAX_ELEMENTS}; lower log2_table_size."
    )
  return HashGrid(
      tuple(scales),
      tuple(resolutions),
      tuple(offsets[:-1]),
      tuple(sizes),
      features,
      smoothstep,
  )


def check_grid(op, grid):
  """Refuses a grid that `make_grid` cannot have made.

  Args:
    op: name of the operation, for the messages.
    grid: HashGrid.
  Raises:
    TypeError: it is none.
    ValueError: its levels do not fit each other or the kernels.
  """
  if not isinstance(grid, HashGrid):
    raise TypeError(
        f"{op}: grid is of type {type(grid).__name__}, want a HashGrid;"
        " make_grid makes one."
    )
  numbers = (*grid.resolutions, *grid.offsets, *grid.sizes, grid.features)
  if not (
      all(isinstance(number, int) for number in numbers)
      and 1 <= len(grid.sizes) <= _MAX_LEVELS
      and len(grid.scales) == len(grid.resolutions) == len(grid.sizes)
      and all(2 <= resolution <= 2**20 for resolution in grid.resolutions)
      and all(size > 0 and size % 8 == 0 for size in grid.sizes)
      and grid.offsets == (0, *itertools.accumulate(grid.sizes[:-1]))
      and grid.num_entries * grid.features <= _MAX_ELEMENTS
      and grid.features in _FEATURES
  ):
    raise ValueError(
        f"{op}: grid is {grid}, whose levels do not fit each other; make_grid"
        " makes one that fits."
    )
