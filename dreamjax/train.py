"""The run: steps on the devices, everything else on the host."""

import dataclasses
import functools
import pathlib
from typing import Any, Callable, NamedTuple

from absl import logging
import jax
from jax import random
import jax.numpy as jnp
import numpy as np

from dreamjax import checkpoint
from dreamjax import journal as journal_lib
from dreamjax import parallel
from dreamjax import prior as prior_lib
from dreamjax import prompts
from dreamjax import scene
from dreamjax import state as state_lib
from dreamjax import step as step_lib
from dreamjax import views
from dreamjax import workdir
from dreamjax.outputs import sheet

# Below this mean opacity there is nothing to see.
_EMPTY = 0.02


class Prior(NamedTuple):
  """What a run needs of a Stable Diffusion once its texts are embedded.

  Attributes:
    model: diffusion.model.Model.
    params: those that a step reads, of prior.needed.
    schedule: diffusion.schedule.NoiseSchedule.
    prompt: prompts.Prompt with a leading axis P.
  """

  model: Any
  params: Any
  schedule: Any
  prompt: prompts.Prompt


def prepare(run, pipeline):
  """Embeds the prompts of a run, and leaves behind what no step reads.

  Args:
    run: workdir.Run.
    pipeline: diffusion.model.StableDiffusion. Drop it: the text encoder and
      the decoder, if no step reads it, are large.
  Returns:
    Prior.
  Raises:
    ValueError: the config means nothing, or config.guidance.image_size does
      not suit the model.
  """
  model, params = pipeline.model, pipeline.params
  prior_lib.shapes(run.config.guidance, model)
  _template(run)
  jax.eval_shape(
      lambda key: views.draw(key, run.config, np.arange(1), 0.0), random.key(0)
  )
  encode = jax.jit(model.encode_text)
  embedded = [
      prompts.embed(
          text,
          run.config.prompt,
          lambda token: encode(
              {"text_encoder": params["text_encoder"]}, token
          ),
          pipeline.tokenizer,
      )
      for text in run.prompts
  ]
  prompt = jax.tree.map(lambda *leaves: np.stack(leaves), *embedded)
  return Prior(
      model,
      prior_lib.needed(run.config.guidance, model, params),
      pipeline.schedule,
      prompt,
  )


@functools.partial(jax.jit, static_argnums=0)
def _initial(run):
  """TrainState with a leading axis P; all prompts start alike."""
  key, _ = random.split(random.key(run.seed))
  state = state_lib.init(run.config, key)
  return jax.tree.map(
      lambda leaf: jnp.broadcast_to(leaf, (len(run.prompts), *leaf.shape)),
      state,
  )


def _template(run):
  """`_initial` without numbers."""
  return jax.eval_shape(functools.partial(_initial, run))


def restore(run: workdir.Run, store: checkpoint.Store):
  """The newest state of a run, on the host.

  Args:
    run: workdir.Run.
    store: its checkpoints.
  Returns:
    state.TrainState with a leading axis P.
  Raises:
    checkpoint.Refused: there is none, or it does not fit.
  """
  found = store.restore(_template(run))
  if found is None:
    raise checkpoint.Refused("the run has no checkpoint yet.")
  return found[1]


def fit(
    run: workdir.Run,
    prior: Prior,
    store: checkpoint.Store,
    where: parallel.Layout,
    folder: pathlib.Path,
    should_stop: Callable[[], bool],
):
  """Trains to the end, from the newest checkpoint if there is one.

  Args:
    run: workdir.Run.
    prior: of `prepare`.
    store: the run's checkpoints.
    where: division of the work.
    folder: the workdir; metrics.jsonl and progress.png go to the prompts'
      folders.
    should_stop: asked after every call of the device; the state is then saved
      and returned.
  Returns:
    state.TrainState on the host, with a leading axis P.
  Raises:
    FloatingPointError: gradients were not finite for many steps in a row;
      names the first of them and the array. The state before it is saved.
  """
  config, train = run.config, run.config.train
  step, state = store.restore(_template(run)) or (0, _initial(run))
  phases = views.phases(config)
  _, key = random.split(random.key(run.seed))
  shared = parallel.replicate(
      step_lib.Shared(
          prior.params,
          prior.schedule,
          random.key_data(key),
          first=np.int32(0),
          count=np.int32(0),
      ),
      where,
  )
  prompt = parallel.shard(prior.prompt, where)
  states = parallel.shard(state, where)
  roomy = _with_room(config, state.demand)
  places = workdir.prompt_folders(folder, run.prompts)
  checked = state_lib.checked(state)
  if step < train.steps:
    del state  # The devices have it; once is enough.
  with journal_lib.Journal(places, train.steps, step, checked) as journal:
    while step < train.steps:
      count = _count(train, phases, step)
      program = _program(roomy, prior.model, where, phases[step])
      states, numbers = program(
          states,
          prompt,
          shared._replace(first=np.int32(step), count=np.int32(count)),
      )
      numbers = parallel.unshard(numbers._asdict(), where)
      numbers = {name: value[:, :count] for name, value in numbers.items()}
      journal.write(step, numbers)
      step += count
      before = roomy
      roomy = _with_room(config, parallel.unshard(states.demand, where))
      if roomy != before:
        logging.warning(
            "Step %d: the views want more samples than"
            " render.samples_per_ray=%d; from now on it is %d, in a program"
            " that is compiled for it.",
            step, before.render.samples_per_ray, roomy.render.samples_per_ray,
        )
      is_last = step == train.steps or journal.fault or should_stop()
      is_seen = train.preview_every and step % train.preview_every == 0
      if is_last or is_seen or step % train.checkpoint_every == 0:
        state = parallel.unshard(states, where)
      if is_last or step % train.checkpoint_every == 0:
        store.save(step, state)
      if journal.fault:
        raise FloatingPointError(journal.fault)
      if is_seen:
        _preview(run, state, step, places, numbers["opacity"])
      if is_last:
        break
  return state


def _with_room(config, demand):
  """The config with as many samples as the states' `demand`, f32[P], wants."""
  budget = state_lib.samples_per_ray(config.render, float(np.max(demand)))
  render = dataclasses.replace(config.render, samples_per_ray=budget)
  return dataclasses.replace(config, render=render)


@functools.cache
def _program(config, model, where, phase):
  """The compiled steps; runs that differ in their prompts share them."""
  return parallel.over_devices(
      step_lib.make_steps(config, model, where, phase), where
  )


def _count(train, phases, step):
  """Steps of the next call: at most L, and up to what the host does next."""
  ends = [train.steps, step + train.steps_per_dispatch]
  for every in (train.checkpoint_every, train.preview_every):
    if every:
      ends.append((step // every + 1) * every)
  end = min(ends)
  others = (i for i in range(step, end) if phases[i] != phases[step])
  return next(others, end) - step


def _preview(run, state, step, places, opacity):
  """Writes each prompt's progress.png; `opacity` is f32[P, steps]."""
  for i, (place, text) in enumerate(zip(places, run.prompts)):
    seen = opacity[i].mean()
    if seen < _EMPTY:
      logging.warning(
          "%s: the scene is empty after %d steps (mean opacity %.3f).",
          text, step, seen,
      )
    sheet.write_preview(
        place / "progress.png",
        scene.make(run.config, state, i).render_views,
        f"{text}, step {step}",
    )
