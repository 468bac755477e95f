"""Imports run one way: a module imports only from rows above its own."""

import ast
import pathlib

import pytest

import dreamjax

# A name stands for the module or for all modules of the package, which may
# import each other. The longest name that fits a module counts.
LAYERS = (
    ("allocator", "compiler", "config", "outputs.files", "signals"),
    ("config_io", "schedules", "ops", "vectors"),
    ("cameras", "checkpoint", "chunks", "occupancy", "parallel", "progress",
     "roofline"),
    ("journal", "losses", "optimizer", "shading", "workdir"),
    ("fields", "diffusion", "prompts"),
    ("guidance", "options", "prior", "render", "state"),
    ("outputs", "scene", "views"),
    ("step",),
    ("memory", "profiling", "toybox", "train"),
    ("evaluation", "inputs", "plan"),
    ("commands",),
    ("main",),
    ("__main__",),
)
LEVELS = {name: level for level, row in enumerate(LAYERS) for name in row}

ROOT = pathlib.Path(dreamjax.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(ROOT.rglob("*.py"))
    if path.relative_to(ROOT).parts[0] not in ("configs", "__init__.py")
}


def group(module):
  """The name in LAYERS that a module belongs to, or None."""
  parts = module.split(".")
  prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
  return next((name for name in prefixes if name in LEVELS), None)


def imported(path):
  """Modules of this project that a file imports, anywhere in it."""
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
      continue
    for name in names:
      if name.startswith("dreamjax."):
        yield name.removeprefix("dreamjax.")


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_from_below(module):
  own = group(module)
  assert own, f"{module} has no row in LAYERS"
  for name in imported(MODULES[module]):
    if name == "_kernels":  # The compiled module imports nothing of ours.
      assert module == "ops.kernels"
      continue
    other = group(name)
    assert other, f"{module} imports {name}, which has no row in LAYERS"
    if own != other:
      assert LEVELS[other] < LEVELS[own], f"{module} must not import {name}"


def test_every_row_names_what_exists():
  assert {group(module) for module in MODULES} == set(LEVELS)
