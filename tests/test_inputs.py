"""Tests of dreamjax.inputs."""

import hashlib

import jax
import pytest

from dreamjax import inputs
from dreamjax import options


def test_the_record_names_what_is_added_to_the_weights(tmp_path):
  for name in ("style.safetensors", "cat.safetensors"):
    (tmp_path / name).write_bytes(name.encode())
  make = lambda *words: inputs.additions(
      options.parse(["dreamjax", *words], ["fit"])
  )
  assert make() == ()
  lines = make(
      f"--lora={tmp_path}/style.safetensors:0.8",
      f"--embedding={tmp_path}/cat.safetensors",
      "--prediction=v_prediction",
  )
  assert [line.partition(":")[0] for line in lines] == [
      "lora at 0.8", "embedding", "prediction"
  ]
  digest = hashlib.sha256(b"style.safetensors").hexdigest()
  assert lines[0] == f"lora at 0.8: {digest} (style.safetensors)"
  assert lines[2] == "prediction: v_prediction"


def test_other_faults_of_the_device_are_not_hidden(tmp_path):
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    with inputs.shortage(tmp_path):
      raise jax.errors.JaxRuntimeError("INTERNAL: something else.")
