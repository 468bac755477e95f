"""CMake and Bazel build the same sources with the same options."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
KERNELS = ROOT / "kernels"
CMAKE = (KERNELS / "CMakeLists.txt").read_text(encoding="utf-8")


def _bazel_lists():
  """The lists of strings that BUILD gives a name."""
  for node in ast.parse((ROOT / "BUILD").read_text(encoding="utf-8")).body:
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.List):
      yield node.targets[0].id, ast.literal_eval(node.value)


BAZEL = dict(_bazel_lists())


def _cmake(pattern):
  """The words that a pattern's group matches in CMakeLists.txt."""
  return re.search(pattern, CMAKE).group(1).split()


@pytest.mark.parametrize(
    "suffix, name, pattern",
    [
        (".cc", "SOURCES", r"pybind11_add_module\(_kernels ([^)]*)\)"),
        (".cu", "CUDA_SOURCES", r"target_sources\(_kernels PRIVATE ([^)]*)\)"),
    ],
)
def test_both_compile_every_source(suffix, name, pattern):
  files = {path.name for path in KERNELS.glob(f"*{suffix}")}
  assert files
  assert sorted(_cmake(pattern)) == sorted(files)
  assert sorted(BAZEL[name]) == sorted(f"kernels/{file}" for file in files)


def test_both_give_the_compiler_the_same_options():
  options = _cmake(r"<COMPILE_LANG_AND_ID:CXX,GNU,Clang>:([^>]*)>")
  standard = _cmake(r"CMAKE_CXX_STANDARD (\d+)")
  assert BAZEL["COPTS"] == [f"-std=c++{standard[0]}", *options]


def test_both_give_nvcc_the_same_options():
  options = _cmake(r"<COMPILE_LANGUAGE:CUDA>:([^>]*)>")
  standard = _cmake(r"CUDA_STANDARD (\d+)")
  assert set(BAZEL["CUDA_COPTS"]) == {
      f"-std=c++{standard[0]}",
      "-O3",  # CMake's own for a release.
      "-Xcompiler=-fPIC",  # CMake's own for a module.
      *options,
  }
  architectures = _cmake(r"CMAKE_CUDA_ARCHITECTURES (\d[^)]*)\)")
  assert BAZEL["CUDA_ARCHITECTURES"] == architectures


def test_both_module_files_name_the_same_repositories():
  workspace, module = (
      (ROOT / name).read_text(encoding="utf-8")
      for name in ("WORKSPACE", "MODULE.bazel")
  )
  block = re.compile(r"^(?:pip_headers|cuda_toolkit)\(\n.*?^\)", re.M | re.S)
  assert len(block.findall(module)) == 4
  assert block.findall(workspace) == block.findall(module)
