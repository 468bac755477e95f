"""One training step, and many of them in one call of the device.

render -> resize -> encode -> noise -> denoise, and back along the same road,
the denoiser excepted; or decode what it means, and back from the image. P
prompts, V views of a prompt on a device, L steps per call.
"""

from typing import Any, NamedTuple

import jax
from jax import lax
from jax import random
import jax.numpy as jnp
import optax

from dreamjax import fields
from dreamjax import occupancy
from dreamjax import parallel
from dreamjax import prior
from dreamjax import prompts
from dreamjax import schedules
from dreamjax import state as state_lib
from dreamjax import views
from dreamjax.guidance import draws
from dreamjax.guidance import sds


class Numbers(NamedTuple):
  """What a step says about itself.

  Attributes:
    opacity: f32[], mean over the rays.
    overflow: f32[], samples that found no slot, as a share of the slots.
    residual: f32[], see guidance.sds.gradient.
    text: f32[], as well.
    t: f32[], as well.
    gradient: f32[], global norm of the gradient of the parameters.
    culprit: i32[], index into state.checked of the first array that was not
      finite; -1 if all were, and the step was taken.
  """

  opacity: jax.Array
  overflow: jax.Array
  residual: jax.Array
  text: jax.Array
  t: jax.Array
  gradient: jax.Array
  culprit: jax.Array


class Shared(NamedTuple):
  """What is the same for all prompts and devices.

  Attributes:
    params: those of the model that a step reads, of prior.needed.
    schedule: diffusion.schedule.NoiseSchedule.
    key: u32[2], data of the run's key for steps.
    first: i32[], steps done before the call.
    count: i32[], steps to do in the call, at most L.
  """

  params: Any
  schedule: Any
  key: jax.Array
  first: jax.Array
  count: jax.Array


def shapes(config, model, params, schedule):
  """What a step of one prompt takes, as jax.ShapeDtypeStruct.

  Args:
    config: config.Config.
    model: diffusion.model.Model.
    params: of all its networks; jax.ShapeDtypeStruct will do.
    schedule: diffusion.schedule.NoiseSchedule.
  Returns:
    (state.TrainState, prompts.Prompt, Shared).
  """
  text = model.text_encoder
  embedding = (text.max_position_embeddings, text.hidden_size)
  one = jax.ShapeDtypeStruct(embedding, jnp.float32)
  number = jax.ShapeDtypeStruct((), jnp.int32)
  key = random.key(0)
  shared = Shared(
      prior.needed(config.guidance, model, params), schedule,
      random.key_data(key), number, number,
  )
  several = jax.ShapeDtypeStruct(
      (len(config.prompt.views), *embedding), jnp.float32
  )
  return (
      jax.eval_shape(lambda key: state_lib.init(config, key), key),
      prompts.Prompt(several, one, one),
      jax.tree.map(
          lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shared
      ),
  )


def make_steps(config, model, where, phase):
  """Up to L = config.train.steps_per_dispatch steps, for `over_devices`.

  The number of steps is an argument and not a shape: one program serves the
  ends of phases, checkpoints and the last steps alike.

  Args:
    config: config.Config.
    model: diffusion.model.Model, or anything with its `encode_image`,
      `denoise`, `image_size` and, for residuals of images, `decode_image`.
    where: parallel.Layout.
    phase: views.Phase.
  Returns:
    (state.TrainState, prompts.Prompt, indices i32[V], Shared) -> (TrainState,
    Numbers with a leading axis L). Numbers of steps not taken are 0.
  """

  def steps(state, prompt, indices, shared):
    def body(i, carry):
      state, numbers = carry
      state, new = _step(
          config, model, where, phase, state, prompt, indices, shared,
          shared.first + i,
      )
      return state, jax.tree.map(lambda x, y: x.at[i].set(y), numbers, new)

    none = jnp.zeros(config.train.steps_per_dispatch, jnp.float32)
    numbers = Numbers(*[none for _ in Numbers._fields])
    numbers = numbers._replace(culprit=none.astype(jnp.int32))
    return lax.fori_loop(0, shared.count, body, (state, numbers))

  return steps


def _step(
    config, model, where, phase, state, prompt, indices, shared, step
):
  """(TrainState, Numbers) after the step with a number, for one prompt."""
  key_run = random.wrap_key_data(shared.key)
  key_views, key_guidance, key_grid = random.split(
      random.fold_in(key_run, step), 3
  )
  key_t, key_noise = random.split(key_guidance)
  progress = step.astype(jnp.float32) / config.train.steps
  field = fields.make(config.field, config.render.bound)
  # A branch on the number of the step, which all prompts share.
  grid = lax.cond(
      step % config.render.occupancy_every == 0,
      lambda grid: look_around(
          key_grid, config, state.params, grid, progress
      ),
      lambda grid: grid,
      state.occupancy,
  )
  drawn = views.draw(key_views, config, indices, progress)
  guidance = config.guidance

  def look(params):
    images, penalty, overflow = views.look(
        config, field, params, drawn, grid.bits, progress, phase.with_normals
    )
    if phase.as_latents:
      image = prior.normals_as_latents(guidance, model, images)
    else:
      image = prior.resize(guidance, model, images.color)
    return (image, penalty), (images, overflow)

  (image, _), pull, (images, overflow) = jax.vjp(
      look, state.params, has_aux=True
  )
  known = (guidance, model, shared.params)

  def encode(image):
    return image if phase.as_latents else prior.encode(*known, image)

  latent, pull_latent = jax.vjp(encode, image)
  latent_gradient, strength, diagnostics = sds.gradient(
      draws.timesteps(key_t, indices, progress, shared.schedule, guidance),
      draws.noise(
          key_noise,
          random.fold_in(key_run, config.train.steps),  # No step's number.
          indices,
          drawn.camera,
          latent.shape[1:],
          progress,
          guidance,
      ),
      schedules.value(guidance.scale, progress),
      latent,
      prompts.select(
          prompt,
          config.prompt,
          guidance.perp_neg,
          drawn.camera.azimuth,
          drawn.camera.elevation,
      ),
      prior.denoiser(*known),
      shared.schedule,
      guidance,
  )
  if guidance.residual == "image" and not phase.as_latents:
    image_gradient = sds.image_gradient(
        image,
        latent,
        latent_gradient,
        strength,
        lambda clean: prior.decode(*known, clean),
    )
  else:
    (image_gradient,) = pull_latent(latent_gradient)
  (gradient,) = pull((image_gradient, jnp.float32(1.0)))
  gradient = parallel.mean_over_group(gradient, where)
  length = optax.tree.norm(gradient)
  culprit = _first_bad(
      [images.color, latent, latent_gradient, *jax.tree.leaves(gradient),
       length],
      where,
  )
  budget = config.render.samples_per_ray * images.opacity.size
  numbers = parallel.mean_over_group({
      "opacity": jnp.mean(images.opacity),
      "overflow": overflow.astype(jnp.float32) / budget,
      **diagnostics,
  }, where)
  state = state_lib.advance(
      config, state, gradient, grid, culprit < 0, numbers["overflow"], progress
  )
  return state, Numbers(**numbers, gradient=length, culprit=culprit)


def look_around(key, config, params, grid, progress):
  """Occupancy of a scene, one update on.

  Args:
    key: the step's key for the grid.
    config: config.Config.
    params: of the field.
    grid: occupancy.Occupancy.
    progress: f32[], in [0, 1].
  """
  field = fields.make(config.field, config.render.bound)
  return occupancy.update(
      key,
      lambda position: field.query(params, position, progress)[0],
      grid,
      config.render,
  )


def _first_bad(arrays, where):
  """i32[], index of the first array with a NaN or infinity on any device."""
  bad = jnp.stack([~jnp.all(jnp.isfinite(array)) for array in arrays])
  bad = parallel.mean_over_group(bad.astype(jnp.float32), where) > 0
  first = jnp.argmax(bad).astype(jnp.int32)
  return jnp.where(jnp.any(bad), first, jnp.int32(-1))
