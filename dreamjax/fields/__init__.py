"""Scene representations, by the name that `config.FieldConfig.kind` gives."""

from dreamjax.fields import field
from dreamjax.fields import hashgrid
from dreamjax.fields import mlp

Field = field.Field

# name -> make(config.FieldConfig, bound) -> Field
FIELDS = {"hashgrid": hashgrid.make, "mlp": mlp.make}
