"""Pytest plugin: the kernels are those of the module that a variable names."""

import importlib.util
import os
import sys

_NAME = "dreamjax._kernels"

if "dreamjax.ops.kernels" in sys.modules:
  raise ImportError("too late: dreamjax has loaded its own kernels.")
_spec = importlib.util.spec_from_file_location(
    _NAME, os.environ["SUBSTITUTE_KERNELS"]
)
sys.modules[_NAME] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules[_NAME])
