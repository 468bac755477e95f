"""From a model folder's JSON to a frozen dataclass, refusing what is unknown."""

import dataclasses


def read(source, values, kind, neutral):
  """A `kind` made from parsed JSON.

  Fields of `kind` are taken. Every other key must hold a value that changes
  nothing: one of `neutral[key]`, or null. Keys that begin with an underscore
  and are not in `neutral` are notes of the writer.

  Args:
    source: name of the file, for messages.
    values: dict, the parsed JSON.
    kind: dataclass type with a default for every field.
    neutral: dict from key to the tuple of accepted values.
  Returns:
    kind.
  Raises:
    ValueError: a key asks for something that is not implemented.
  """
  names = {field.name for field in dataclasses.fields(kind)}
  fields = {}
  for key, value in values.items():
    value = _freeze(value)
    if key in names:
      fields[key] = value
    elif value not in neutral.get(key, ()) and not (
        value is None or (key.startswith("_") and key not in neutral)
    ):
      accepted = " or ".join(map(repr, neutral.get(key, (None,))))
      raise ValueError(
          f"{source}: {key} is {value!r}, want {accepted}; this kind of model"
          " is not supported."
      )
  return kind(**fields)


def _freeze(value):
  return tuple(map(_freeze, value)) if isinstance(value, list) else value


def require_choices(name, config, choices):
  """Refuses a config whose field `name` has an entry not in `choices`.

  Raises:
    ValueError: naming the field, the entry and the choices.
  """
  for value in getattr(config, name):
    if value not in choices:
      raise ValueError(
          f"{type(config).__name__}: {name} has {value!r}, want one of"
          f" {', '.join(choices)}."
      )
