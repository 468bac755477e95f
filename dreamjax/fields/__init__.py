"""Scene representations, by the name that `config.FieldConfig.kind` gives."""

from dreamjax.fields import field
from dreamjax.fields import hashgrid
from dreamjax.fields import mlp

Field = field.Field
with_slope = field.with_slope

# name -> make(config.FieldConfig, bound) -> Field
FIELDS = {"hashgrid": hashgrid.make, "mlp": mlp.make}


def make(config, bound):
  """The field that a config asks for.

  Args:
    config: config.FieldConfig.
    bound: radius of the ball that holds the scene, units.
  Returns:
    Field.
  Raises:
    ValueError: the config names no field, or describes an impossible one.
  """
  if config.kind not in FIELDS:
    raise ValueError(
        f"FieldConfig: kind is {config.kind!r}, want one of {tuple(FIELDS)}."
    )
  return FIELDS[config.kind](config, bound)
