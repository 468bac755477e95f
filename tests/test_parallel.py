"""Tests of dreamjax.parallel, on virtual CPU devices."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamjax import parallel

STEPS = 5


def toy_step(where):
  """Descends the mean over views of |x - target - noise(step, view)|^2 / 2."""

  def step(state, prompt, indices, shared):
    key = jax.random.fold_in(jax.random.key(shared["seed"]), shared["step"])
    noise = jax.vmap(
        lambda view: jax.random.normal(jax.random.fold_in(key, view), (3,))
    )(indices)
    gradient = jnp.mean(state["x"] - prompt - shared["scale"] * noise, axis=0)
    gradient = parallel.mean_over_group(gradient, where)
    # The branch is on `shared`, so it stays one under vmap.
    state = jax.lax.cond(
        shared["step"] % 2 == 0,
        lambda state: state | {"even": state["even"] + 1},
        lambda state: state,
        state | {"x": state["x"] - jnp.float32(0.1) * gradient},
    )
    return state, {"norm": jnp.linalg.norm(gradient)}

  return step


def run(prompts, views, devices):
  where = parallel.layout(prompts, views, devices)
  step = parallel.over_devices(toy_step(where), where)
  target = np.arange(prompts * 3, dtype=np.float32).reshape(prompts, 3)
  state = {
      "x": np.zeros((prompts, 3), np.float32),
      "even": np.zeros((prompts,), np.int32),
  }
  scale = parallel.replicate(jnp.float32(0.5), where)
  states = parallel.shard(state, where)
  target = parallel.shard(target, where)
  norms = []
  for i in range(STEPS):
    shared = {"seed": np.int32(7), "step": np.int32(i), "scale": scale}
    states, metrics = step(states, target, shared)
    norms.append(parallel.unshard(metrics, where)["norm"])
  return states, parallel.unshard(states, where), np.stack(norms)


@pytest.mark.parametrize("prompts, views", [(1, 8), (2, 4), (4, 8), (8, 1)])
def test_device_count_does_not_change_the_run(prompts, views):
  _, alone, norms_alone = run(prompts, views, 1)
  assert alone["x"].shape == (prompts, 3)
  np.testing.assert_array_equal(alone["even"], math.ceil(STEPS / 2))
  assert np.ptp(alone["x"]) > 0.1
  for devices in (2, 4, 8):
    _, shared, norms = run(prompts, views, devices)
    # Only the order of the sum over views differs.
    np.testing.assert_allclose(shared["x"], alone["x"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norms, norms_alone, rtol=1e-5)
    np.testing.assert_array_equal(shared["even"], alone["even"])


def test_a_prompt_does_not_feel_its_neighbours():
  _, four, _ = run(4, 4, 4)
  _, two, _ = run(2, 4, 2)
  np.testing.assert_array_equal(four["x"][:2], two["x"])


def test_devices_of_a_group_stay_equal_bit_for_bit():
  states, _, _ = run(2, 4, 8)
  x = np.asarray(states["x"]).reshape(2, 4, 3)  # groups, members, values
  np.testing.assert_array_equal(x, np.broadcast_to(x[:, :1], x.shape))


@pytest.mark.parametrize(
    "prompts, views, devices, groups, per_device",
    [
        (1, 4, 1, 1, (1, 4)),
        (1, 8, 8, 1, (1, 1)),
        (4, 4, 8, 4, (1, 2)),
        (8, 3, 4, 4, (2, 3)),
        (6, 4, 4, 2, (3, 2)),
    ],
)
def test_layout_divides_the_work_evenly(
    prompts, views, devices, groups, per_device
):
  where = parallel.layout(prompts, views, devices)
  assert where.groups == groups
  assert (where.prompts_per_device, where.views_per_device) == per_device
  assert math.prod(per_device) * devices == prompts * views


def test_layout_takes_as_many_devices_as_divide_the_work():
  assert jax.local_device_count() == 8, "conftest makes 8 virtual devices"
  assert parallel.layout(1, 4).devices == 4
  assert parallel.layout(1, 3).devices == 3
  assert parallel.layout(4, 4).devices == 8
  assert parallel.layout(5, 1).devices == 5


def test_work_that_does_not_divide_is_refused_with_the_numbers():
  with pytest.raises(ValueError) as error:
    parallel.layout(3, 4, 8)
  message = str(error.value)
  assert "3 prompts x 4 views do not divide over 8 devices" in message
  assert "Device counts that work: 1, 2, 3, 4, 6" in message


def test_missing_devices_are_refused():
  with pytest.raises(ValueError, match="devices is 9, but 8 are here"):
    parallel.layout(1, 9, 9)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_sharding_round_trips_and_survives_donation(devices):
  where = parallel.layout(4, 2, devices)
  host = {"a": np.arange(20, dtype=np.float32).reshape(4, 5)}
  states = parallel.shard(host, where)
  assert states["a"].shape == (devices, where.prompts_per_device, 5)
  np.testing.assert_array_equal(
      parallel.unshard(states, where)["a"], host["a"]
  )
  add = parallel.over_devices(
      lambda state, prompt, indices, shared: (
          jax.tree.map(lambda x: x + prompt, state),
          {},
      ),
      where,
  )
  ones = parallel.shard(np.ones((4,), np.float32), where)
  moved, _ = add(states, ones, np.int32(0))
  assert states["a"].is_deleted()
  np.testing.assert_array_equal(
      parallel.unshard(moved, where)["a"],
      np.arange(20, dtype=np.float32).reshape(4, 5) + 1,
  )
  np.testing.assert_array_equal(
      host["a"], np.arange(20, dtype=np.float32).reshape(4, 5)
  )


def test_a_step_moves_no_array_between_devices():
  where = parallel.layout(1, 4, 4)
  weights = parallel.replicate(jnp.ones((16,)), where)
  states = parallel.shard(np.zeros((1, 2), np.float32), where)
  step = parallel.over_devices(
      lambda state, prompt, indices, shared: (state + jnp.sum(shared), {}),
      where,
  )
  with jax.transfer_guard("disallow"):
    states, _ = step(states, {}, weights)
  np.testing.assert_array_equal(parallel.unshard(states, where), [[16.0, 16.0]])


def test_what_is_lowered_is_what_runs():
  where = parallel.layout(2, 4, 4)

  def step(state, prompt, indices, shared):
    total = jnp.sum(indices.astype(jnp.float32)) * prompt + shared
    return state + parallel.mean_over_group(total, where), total

  one = jax.ShapeDtypeStruct((), np.float32)
  compiled = parallel.lower(step, where, one, one, one).compile()
  host = np.array([1.0, 2.0], np.float32)
  arguments = lambda: (parallel.shard(host, where), parallel.shard(host, where))
  shared = parallel.replicate(np.float32(3.0), where)
  got = compiled(*arguments(), parallel.indices(where), shared)
  want = parallel.over_devices(step, where)(*arguments(), shared)
  for a, b in zip(got, want, strict=True):
    np.testing.assert_array_equal(
        parallel.unshard(a, where), parallel.unshard(b, where)
    )
