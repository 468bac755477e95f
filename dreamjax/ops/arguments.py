"""Checks of array arguments at the border of an operation."""


def _text(dtype, sizes):
  return f"{dtype}[{', '.join(str(size) for size in sizes)}]"


def _size_of(axis, size, sizes):
  """What an axis must measure; a name that is new in `sizes` takes `size`."""
  if isinstance(axis, int):
    return axis
  name, _, more = axis.partition("+")
  more = int(more or 0)
  return sizes.setdefault(name, max(size - more, 0)) + more


def check(op, **arguments):
  """Sizes of the axes of arguments, or an error that names the culprit.

  Args:
    op: name of the operation, for the messages.
    **arguments: name=(array, dtype name, axes). An axis is an int, the wanted
      size; a letter, whose size is that in the first argument that has it; or
      a letter with "+1". Axes before those are batch axes, the same for all.
  Returns:
    {letter: size}.
  Raises:
    TypeError: an argument is no array or has another dtype.
    ValueError: an argument has another shape.
  """
  sizes, batch = {}, None
  for name, (array, dtype, axes) in arguments.items():
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
      raise TypeError(
          f"{op}: {name} is of type {type(array).__name__}, want an array of"
          f" {dtype}; convert it with jnp.asarray."
      )
    shape = tuple(array.shape)
    got = f"{op}: {name} is {_text(array.dtype, shape)}"
    if str(array.dtype) != dtype:
      raise TypeError(f"{got}, want {dtype}; cast it with .astype.")
    lead = shape[: max(len(shape) - len(axes), 0)]
    known = dict(sizes)
    fits = len(shape) >= len(axes) and batch in (None, lead)
    for axis, size in zip(axes, shape[len(lead) :]):
      fits = fits and _size_of(axis, size, sizes) == size
    if not fits:
      want = ["..."] if batch is None else list(batch)
      for axis in axes:
        letter = str(axis).partition("+")[0]
        bound = letter in known
        want.append(f"{axis}={_size_of(axis, 0, known)}" if bound else axis)
      raise ValueError(f"{got}, want {_text(dtype, want)}.")
    batch = lead
  return sizes
