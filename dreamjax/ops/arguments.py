"""Checks of array arguments at the border of an operation."""


def _text(dtype, sizes):
  return f"{dtype}[{', '.join(str(size) for size in sizes)}]"


def check(op, **arguments):
  """Sizes of the axes that arguments share, or an error that names the culprit.

  Args:
    op: name of the operation, for the messages.
    **arguments: name=(array, dtype name, axes). An axis is an int (the wanted
      size) or a name; a name takes its size from the first argument that has
      it. "X+1" wants one more than axis "X". Whatever axes come before the
      listed ones are batch axes, the same for all arguments.
  Returns:
    (batch axes, {axis name: size}).
  Raises:
    TypeError: an argument is no array or has another dtype.
    ValueError: an argument has another shape.
  """
  sizes = {}
  batch = None
  for name, (array, dtype, axes) in arguments.items():
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
      raise TypeError(
          f"{op}: {name} is {type(array).__name__}, want an array of {dtype};"
          " convert it with jnp.asarray."
      )
    shape = tuple(array.shape)
    got = f"{op}: {name} is {_text(array.dtype, shape)}"
    if str(array.dtype) != dtype:
      raise TypeError(f"{got}, want {dtype}; cast it with .astype.")
    split = len(shape) - len(axes)
    if batch is None:
      batch = shape[: max(split, 0)]
    want = list(batch)
    matches = split >= 0 and shape[:split] == batch
    for axis, size in zip(axes, shape[max(split, 0) :]):
      if isinstance(axis, int):
        wanted = axis
      elif axis.endswith("+1"):
        wanted = sizes[axis[:-2]] + 1 if axis[:-2] in sizes else size
        sizes.setdefault(axis[:-2], size - 1)
      else:
        wanted = sizes.setdefault(axis, size)
      matches = matches and wanted == size and wanted >= 0
    for axis in axes:
      name_size = sizes.get(axis)
      want.append(axis if name_size is None else f"{axis}={name_size}")
    if not matches:
      raise ValueError(f"{got}, want {_text(dtype, want)}.")
  return batch, sizes
