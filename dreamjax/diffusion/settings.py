"""From a model folder's JSON to a frozen dataclass; the unknown is refused."""

import dataclasses
from typing import Any, TypeVar

Config = TypeVar("Config")


def read(
    source: str,
    values: dict[str, Any],
    kind: type[Config],
    neutral: dict[str, tuple[Any, ...]],
    *,
    ignore_others: bool = False,
) -> Config:
  """A `kind` made from parsed JSON.

  Fields of `kind` are taken. Every other key must hold a value that changes
  nothing: one of `neutral[key]`, or null. Keys that begin with an underscore
  and are not in `neutral` are notes of the writer.

  Args:
    source: name of the file, for messages.
    values: the parsed JSON.
    kind: dataclass type with a default for every field.
    neutral: accepted values of further keys.
    ignore_others: whether keys in neither are skipped instead of refused.
  Returns:
    kind.
  Raises:
    ValueError: a key asks for something that is not implemented, or a field
      has the wrong type.
  """
  types = {field.name: field.type for field in dataclasses.fields(kind)}
  fields = {}
  for key, value in values.items():
    value = _freeze(value)
    if key in types:
      # Integers are good floats; JSON writes 1.0 as 1 at times.
      if not isinstance(value, _plain(types[key])):
        want = getattr(types[key], "__name__", types[key])
        raise ValueError(f"{source}: {key} is {value!r}, want {want}.")
      fields[key] = value
    elif key in neutral:
      if value is not None and value not in neutral[key]:
        accepted = " or ".join(map(repr, neutral[key] or (None,)))
        raise ValueError(
            f"{source}: {key} is {value!r}, want {accepted}; this kind of"
            " model is not supported."
        )
    elif not (value is None or key.startswith("_") or ignore_others):
      raise ValueError(
          f"{source}: {key} is {value!r}; this feature is not supported."
      )
  return kind(**fields)


def _freeze(value):
  return tuple(map(_freeze, value)) if isinstance(value, list) else value


def _plain(annotation):
  """Classes that isinstance knows, of a field's annotation."""
  kinds = getattr(annotation, "__args__", None)
  if getattr(annotation, "__origin__", None) is tuple:
    return tuple
  if kinds:
    return tuple(_plain(kind) for kind in kinds)
  return (int, float) if annotation is float else annotation


def require_choices(name: str, config: Any, choices: dict[str, Any]) -> None:
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
