"""Configs from files, from the command line, and to and from JSON.

The JSON form of a config is a tree of dicts whose leaves are numbers, strings
and lists; infinities are the strings "inf" and "-inf", which plain JSON lacks.
Every error is a `ConfigError` whose one line names the field.
"""

import ast
import dataclasses
import difflib
import importlib.util
import json
import math
import pathlib
import typing
from typing import Any, Iterable

from dreamjax import config as config_lib

_MISSING = "missing"
_KINDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
}


class ConfigError(ValueError):
  """A config that cannot be: the message names the field and the remedy."""


def to_dict(value: Any) -> Any:
  """The JSON tree of a config or of any part of it."""
  if dataclasses.is_dataclass(value):
    names = (field.name for field in dataclasses.fields(value))
    return {name: to_dict(getattr(value, name)) for name in names}
  if isinstance(value, tuple):
    return [to_dict(item) for item in value]
  if isinstance(value, float) and math.isinf(value):
    return str(value)
  return value


def from_dict(tree: dict[str, Any]) -> config_lib.Config:
  """The config of a JSON tree; absent fields take their defaults.

  Raises:
    ConfigError: an unknown field, a value of the wrong type, or a value that
      the dataclass refuses.
  """
  return _convert(tree, config_lib.Config, "config")


def to_json(config: config_lib.Config) -> str:
  """JSON text that `from_json` turns back into an equal config."""
  return json.dumps(to_dict(config), indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> config_lib.Config:
  """The config of a JSON text; errors as in `from_dict`."""
  return from_dict(json.loads(text))


def differences(old: Any, new: Any, name: str = "") -> list[tuple]:
  """Leaves in which two JSON trees differ: (dotted name, old, new)."""
  if isinstance(old, dict) and isinstance(new, dict):
    prefix = f"{name}." if name else ""
    return [
        difference
        for key in dict.fromkeys([*old, *new])
        for difference in differences(
            old.get(key, _MISSING), new.get(key, _MISSING), prefix + key
        )
    ]
  return [] if old == new else [(name, old, new)]


def override(
    config: config_lib.Config, settings: Iterable[tuple[str, str]]
) -> config_lib.Config:
  """A config with fields replaced; only the outcome has to be valid.

  Args:
    config: the base.
    settings: (dotted name, text), as `("guidance.scale", "50")`. Tuples are
      written `1,2`; a number for a Schedule makes it constant.
  Raises:
    ConfigError: an unknown field, or a value of the wrong type.
  """
  tree = to_dict(config)
  for name, text in settings:
    node, kind = tree, config_lib.Config
    *groups, last = name.split(".")
    for depth, group in enumerate(groups):
      kind = _field_type(kind, group, ".".join(["config", *groups[:depth]]))
      node = node.get(group)
    kind = _field_type(kind, last, ".".join(["config", *groups]))
    node[last] = to_dict(_convert(_parse(text, kind), kind, f"config.{name}"))
  return from_dict(tree)


def load(name: str) -> config_lib.Config:
  """The config of a shipped name or of a Python file, which is executed.

  Raises:
    ConfigError: there is no such config, its `get_config()` does not return a
      `config.Config`, or a field of that has a value of the wrong type.
  """
  shipped = {path.stem: path for path in _folder().glob("[!_]*.py")}
  path = pathlib.Path(name) if name.endswith(".py") else shipped.get(name)
  if path is None:
    raise ConfigError(
        f"--config={name}: no such config{_nearest(name, shipped)};"
        f" shipped are {', '.join(sorted(shipped))}, or give a .py file."
    )
  if not path.is_file():
    raise ConfigError(f"--config={name}: no such file.")
  spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  make = getattr(module, "get_config", None)
  config = make() if make else None
  if not isinstance(config, config_lib.Config):
    raise ConfigError(
        f"--config={name}: the file must define get_config() that returns a"
        " dreamjax.config.Config."
    )
  # Python let any type into any field; a number for a Schedule is constant.
  return from_dict(to_dict(config))


def _folder() -> pathlib.Path:
  """Where the shipped configs lie: in the package, or beside it in git."""
  package = pathlib.Path(__file__).parent
  inside = package / "configs"
  return inside if inside.is_dir() else package.parent / "configs"


def _nearest(name: str, names: Iterable[str]) -> str:
  near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
  return f", did you mean {near[0]!r}?" if near else ""


def _field_type(kind: Any, field: str, name: str) -> Any:
  """Annotation of a field; `name` is that of the dataclass it belongs to."""
  if not dataclasses.is_dataclass(kind):
    raise ConfigError(f"{name} is {_describe(kind)}, it has no fields.")
  kinds = typing.get_type_hints(kind)
  if field not in kinds:
    raise ConfigError(
        f"{name}.{field}: no such field{_nearest(field, kinds)}; {name} has"
        f" {', '.join(kinds)}."
    )
  return kinds[field]


def _parse(text: str, kind: Any) -> Any:
  """The value that a command line means, its type not yet checked."""
  if kind is str:
    return text
  if text.lower() in ("true", "false"):
    return text.lower() == "true"
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text  # "inf", or an error that `_convert` reports
  return text if isinstance(value, dict) else value  # fields are set singly


def _describe(kind: Any) -> str:
  if kind is config_lib.Schedule:
    return "a schedule (or a number)"
  if dataclasses.is_dataclass(kind):
    return "a group of fields"
  return _KINDS.get(kind) or str(kind)


def _convert(value: Any, kind: Any, name: str) -> Any:
  """A JSON tree or literal as the annotated type, or a `ConfigError`."""
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  if kind is config_lib.Schedule and is_number:
    return config_lib.constant(float(value))
  if dataclasses.is_dataclass(kind) and isinstance(value, dict):
    fields = {
        field: _convert(item, _field_type(kind, field, name), f"{name}.{field}")
        for field, item in value.items()
    }
    try:
      return kind(**fields)
    except ValueError as error:
      raise ConfigError(f"{name}: {error}") from error
  if typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
    kinds = typing.get_args(kind)
    if kinds[-1] is ...:
      kinds = kinds[:1] * len(value)
    if len(kinds) == len(value):
      return tuple(map(_convert, value, kinds, [name] * len(kinds)))
  if kind is float and (is_number or value in ("inf", "-inf")):
    return float(value)
  if kind in (int, str, bool) and type(value) is kind:
    return value
  raise ConfigError(f"{name} is {value!r}, want {_describe(kind)}.")
