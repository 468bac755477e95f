"""Tests of loading the compiled kernels, and of calling them on a platform."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax.ops import composite
from dreamjax.ops import hash_encode
from dreamjax.ops import hash_grid
from dreamjax.ops import hash_mlp
from dreamjax.ops import kernels
from dreamjax.ops import march
from dreamjax.ops import mlp

GRID = hash_grid.make_grid(2, 2, 7, 5, 24)

# Runs an operation as a new process sees it, and prints what happened.
_RUN = """
import jax.numpy as jnp
from dreamjax.ops import composite, kernels
offset = jnp.array([0, 2], jnp.int32)
half = jnp.full((2,), 0.5)
print(kernels.status())
print("weight", composite.composite(half, half[:, None], half, offset)[2])
"""


def _python(code, **environment):
  """(exit status, stdout, stderr) of a new interpreter."""
  result = subprocess.run(
      [sys.executable, "-c", code],
      env=os.environ | environment,
      capture_output=True,
      text=True,
      check=False,
  )
  return result.returncode, result.stdout, result.stderr


def test_compiled_kernels_serve_the_cpu():
  assert re.match("compiled kernels: cpu", kernels.status())


def test_runtime_version_is_that_of_the_installed_jaxlib():
  major, minor = kernels.runtime_version()
  assert major == 0 and minor >= 3


def test_off_uses_the_definitions_and_says_so_in_one_line():
  status, out, err = _python(_RUN, DREAMJAX_KERNELS="off")
  assert status == 0, err
  assert "compiled kernels: none (switched off by" in out
  assert "weight [0.22" in out
  assert len(err.strip().splitlines()) == 1
  assert "using jax.numpy" in err


def test_require_passes_where_the_kernels_fit():
  status, out, err = _python(_RUN, DREAMJAX_KERNELS="require")
  assert status == 0, err
  assert "compiled kernels: cpu" in out


def test_an_unknown_mode_is_refused():
  status, _, err = _python(_RUN, DREAMJAX_KERNELS="sometimes")
  assert status != 0
  assert "DREAMJAX_KERNELS is 'sometimes', want one of" in err


_NEWER = """
from dreamjax import _kernels
_kernels.ffi_version = lambda: (0, 99)
"""


def test_kernels_newer_than_the_runtime_stay_unregistered_and_jax_works():
  status, out, err = _python(_NEWER + _RUN, DREAMJAX_KERNELS="auto")
  assert status == 0, err
  assert "none (built for XLA FFI 0.99, this jaxlib speaks 0." in out
  assert "weight [0.22" in out


def test_require_fails_where_the_kernels_do_not_fit():
  status, _, err = _python(_NEWER + _RUN, DREAMJAX_KERNELS="require")
  assert status != 0
  assert "ImportError: DREAMJAX_KERNELS=require, but kernels are built" in err


_TPU = """
from jax.extend import backend
import jax
jax.devices()
backend.backends = lambda: {"cpu": None, "tpu": None}
"""


def test_require_fails_where_a_platform_has_no_kernels():
  status, out, err = _python(_TPU + _RUN, DREAMJAX_KERNELS="require")
  assert status != 0
  assert "compiled kernels: cpu" in out
  assert "DREAMJAX_KERNELS=require, but tpu would use the" in err


_HIDDEN = "import sys; sys.modules['dreamjax._kernels'] = None\n"


def test_require_fails_without_the_module():
  status, _, err = _python(_HIDDEN + _RUN, DREAMJAX_KERNELS="require")
  assert status != 0
  assert "DREAMJAX_KERNELS=require, but kernels are not loaded" in err


def test_a_missing_module_falls_back():
  status, out, err = _python(_HIDDEN + _RUN, DREAMJAX_KERNELS="auto")
  assert status == 0, err
  assert "none (not loaded" in out
  assert "weight [0.22" in out


def _calls():
  """(name, function, arrays) of each operation with its derivatives."""
  table = jnp.zeros((GRID.num_entries, 2))
  position = jnp.zeros((4, 3))

  def second(table, position):
    encode = lambda x: jnp.sum(hash_encode.hash_encode(table, x, GRID) ** 2)
    slope = lambda t, x: jnp.sum(
        jax.grad(lambda x: jnp.sum(hash_encode.hash_encode(t, x, GRID) ** 2))(
            x
        )
        ** 2
    )
    return encode(position), jax.grad(slope, (0, 1))(table, position)

  def render(density, value, width, offset):
    weight = lambda d: jnp.sum(
        composite.composite(d, value, width, offset)[0] ** 2
    )
    return jax.value_and_grad(weight)(density)

  def network(weights, x):
    def slope(weights, x):
      pull = jax.vjp(lambda x: mlp.mlp(weights, x), x)[1]
      return jnp.sum(pull(jnp.ones((4, 2)))[0] ** 2)

    value = jax.grad(lambda w, x: jnp.sum(mlp.mlp(w, x) ** 2), (0, 1))
    return value(weights, x), jax.grad(slope)(weights, x)

  slots = jnp.zeros(8)
  offset = jnp.zeros(3, jnp.int32)
  rays = (jnp.zeros((2, 3)), jnp.zeros((2, 3)), jnp.zeros(2))
  return {
      "hash": (second, (table, position)),
      "mlp": (network, ((jnp.zeros((3, 8)), jnp.zeros((8, 2))), position)),
      "composite": (render, (slots, slots[:, None], slots, offset)),
      "march": (
          lambda *rays: march.march(
              *rays, step=0.1, bound=1.0, max_samples=8
          ),
          (*rays, jnp.zeros((4, 4, 1), jnp.uint8)),
      ),
  }


def test_switched_off_for_a_while_operations_are_their_definitions():
  calls = {}
  for name, (function, arrays) in _calls().items():
    with kernels.off():
      inside = jax.jit(lambda *x: function(*x)).lower(*arrays).as_text()
    after = jax.jit(lambda *x: function(*x)).lower(*arrays).as_text()
    calls[name] = ("dreamjax_" in inside, "dreamjax_" in after)
  assert set(calls.values()) == {(False, True)}


@pytest.mark.parametrize(
    "name, targets",
    [
        (
            "hash",
            {
                "dreamjax_hash_encode",
                "dreamjax_hash_table_gradient",
                "dreamjax_hash_position_gradient",
                "dreamjax_hash_second_table",
                "dreamjax_hash_second_position",
                "dreamjax_hash_second_cotangent",
            },
        ),
        (
            "mlp",
            {
                "dreamjax_mlp",
                "dreamjax_mlp_input_gradient",
                "dreamjax_mlp_gradient",
                "dreamjax_mlp_second",
            },
        ),
        ("composite", {"dreamjax_composite", "dreamjax_composite_gradient"}),
        ("march", {"dreamjax_march"}),
    ],
)
@pytest.mark.parametrize("platform", ["cpu", "CUDA", "tpu"])
def test_a_platform_gets_its_kernels_or_the_definition(
    name, targets, platform, monkeypatch
):
  function, arrays = _calls()[name]
  # As on a machine that has all three.
  monkeypatch.setattr(
      kernels.backend, "backends", lambda: dict.fromkeys(("cpu", "cuda", "tpu"))
  )
  lowered = jax.jit(function).trace(*arrays).lower(
      lowering_platforms=(platform.lower(),)
  )
  called = set(re.findall(r"@(dreamjax_\w+)\(", lowered.as_text()))
  served = platform in kernels.status().partition("(")[0]
  assert called == (targets if served else set())


@pytest.mark.parametrize(
    "platform, targets",
    [
        (
            "cpu",
            {"dreamjax_hash_mlp_slope", "dreamjax_hash_mlp_slope_gradient"},
        ),
        (
            "CUDA",
            {
                "dreamjax_hash_encode",
                "dreamjax_hash_position_gradient",
                "dreamjax_hash_second_cotangent",
                "dreamjax_hash_table_gradients",  # Of both, in one pass.
                "dreamjax_mlp",
                "dreamjax_mlp_gradient",
                "dreamjax_mlp_input_gradient",
                "dreamjax_mlp_second",
            },
        ),
        ("tpu", set()),
    ],
)
def test_a_platform_without_a_kernel_gets_the_kernels_of_its_parts(
    platform, targets, monkeypatch
):
  grid = GRID._replace(features=4)
  weights = [jnp.zeros((grid.num_features, 8)), jnp.zeros((8, 4))]

  def loss(table, weights, position):
    output, slope = hash_mlp.hash_mlp_slope(table, weights, position, grid)
    return jnp.sum(output**2) + jnp.sum(slope**2)

  monkeypatch.setattr(
      kernels.backend, "backends", lambda: dict.fromkeys(("cpu", "cuda", "tpu"))
  )
  arrays = jnp.zeros((grid.num_entries, 4)), weights, jnp.zeros((5, 3))
  lowered = jax.jit(jax.grad(loss, (0, 1))).trace(*arrays).lower(
      lowering_platforms=(platform.lower(),)
  )
  called = set(re.findall(r"@(dreamjax_\w+)\(", lowered.as_text()))
  served = platform in kernels.status().partition("(")[0]
  assert called == (targets if served else set())


def test_definitions_are_not_traced_where_all_platforms_have_kernels(
    monkeypatch,
):
  monkeypatch.setattr(march, "definition", None)
  function, arrays = _calls()["march"]
  assert jax.jit(function)(*arrays).overflow == 0


def test_a_gradient_that_nobody_reads_is_not_computed():
  table, position = jnp.zeros((GRID.num_entries, 2)), jnp.zeros((4, 3))
  loss = lambda table: jnp.sum(
      hash_encode.hash_encode(table, position, GRID) ** 2
  )
  text = jax.jit(jax.grad(loss)).lower(table).compile().as_text()
  assert "dreamjax_hash_table_gradient" in text
  assert "dreamjax_hash_position_gradient" not in text


def test_a_sharded_map_calls_the_kernel_without_communication():
  mesh = jax.make_mesh(
      (4,), ("device",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  rows = jax.sharding.PartitionSpec("device")
  whole = jax.sharding.PartitionSpec()
  encode = jax.jit(
      jax.shard_map(
          lambda t, x: hash_encode.hash_encode(t, x, GRID),
          mesh=mesh,
          in_specs=(whole, rows),
          out_specs=rows,
          check_vma=False,
      )
  )
  rng = np.random.default_rng(0)
  table = jnp.asarray(rng.normal(size=(GRID.num_entries, 2)), jnp.float32)
  position = jnp.asarray(rng.uniform(size=(32, 3)), jnp.float32)
  np.testing.assert_array_equal(
      encode(table, position), hash_encode.hash_encode(table, position, GRID)
  )
  text = encode.lower(table, position).compile().as_text()
  assert "all-gather" not in text and "all-reduce" not in text


def test_a_wrong_call_of_a_kernel_is_an_error_and_not_a_crash():
  wrong = jax.ffi.ffi_call(
      "dreamjax_composite",
      (
          jax.ShapeDtypeStruct((2, 3), jnp.float32),
          jax.ShapeDtypeStruct((2,), jnp.float32),
          jax.ShapeDtypeStruct((8,), jnp.float32),
      ),
  )
  slots, offset = jnp.zeros(8), jnp.zeros(3, jnp.int32)
  with pytest.raises(Exception, match="do not fit each other"):
    jax.block_until_ready(wrong(slots, jnp.zeros((7, 3)), slots, offset))
