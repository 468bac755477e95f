"""The CUDA kernels, compiled for a CPU, pass the tests of the operations.

No GPU is needed: cuda_on_cpu/ stands for CUDA, thread by thread and warp by
warp. What it cannot show stands there; test_cuda.py needs a GPU and runs the
real thing.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import jax
import pytest

ROOT = pathlib.Path(__file__).parents[2]
HERE = pathlib.Path(__file__).parent / "cuda_on_cpu"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
CUDA = ["-D__CUDACC__", "-include", "cuda_runtime.h", "-x", "c++"]
NOT_OF_CUDA = [
    # Sums meet in any order there: the bits of a whole are not its parts'.
    "test_properties.py::"
    "test_hash_encoding_is_that_of_its_levels_and_each_its_definition",
    # By the name of a target that only CPUs have.
    "test_hash_mlp.py::test_slopes_are_computed_where_they_are_asked_for",
]
TESTED = ["hash_encode", "hash_mlp", "march", "composite", "mlp",
          "transformations", "properties"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
]


@pytest.fixture(scope="module")
def module(tmp_path_factory):
  """Path of a module whose CPU targets run the CUDA kernels."""
  pybind11 = pytest.importorskip("pybind11")
  folder = tmp_path_factory.mktemp("cuda_on_cpu")
  others = [
      pybind11.get_include(), jax.ffi.include_dir(),
      sysconfig.get_path("include"),
  ]
  command = [
      COMPILER, "-std=c++17", "-O1", "-fPIC", "-ffp-contract=off",
      "-fvisibility=hidden",
      # Shared memory whose size a launch names needs no constructor.
      "-fno-extern-tls-init",
      f"-I{ROOT / 'kernels'}", f"-I{HERE}",
      *[word for include in others for word in ("-isystem", include)],
  ]
  cuda = {path.stem: path for path in ROOT.glob("kernels/*.cu")}
  cuda["mlp"] = HERE / "mlp.cc"  # Which includes it.
  sources = [*ROOT.glob("kernels/*_cpu.cc"), HERE / "kernels.cc"]
  jobs = [
      subprocess.Popen([
          *command, *language, "-c", source, "-o", folder / f"{source.name}.o"
      ])
      for language, paths in ((CUDA, cuda.values()), ([], sources))
      for source in paths
  ]
  assert [job.wait() for job in jobs] == [0] * len(jobs)
  target = folder / "_kernels.so"
  objects = folder.glob("*.o")
  subprocess.run([COMPILER, "-shared", "-o", target, *objects], check=True)
  return target


def test_operations_pass_their_tests(module):
  tests = [f"tests/ops/test_{name}.py" for name in TESTED]
  others = [f"--deselect=tests/ops/{name}" for name in NOT_OF_CUDA]
  paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
  done = subprocess.run(
      [sys.executable, "-P", "-m", "pytest", "-p", "substitute", "-q",
       *others, *tests],
      cwd=ROOT,
      env=os.environ | {
          "JAX_PLATFORMS": "cpu",
          "PYTHONPATH": os.pathsep.join(filter(None, paths)),
          "SUBSTITUTE_KERNELS": str(module),
          "DREAMJAX_KERNELS": "require",
      },
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
