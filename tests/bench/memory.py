"""What `dreamjax plan` foretells against what a run takes on a CPU.

Command:  python tests/bench/memory.py WORD [--config.GROUP.FIELD=VALUE ...]
Result:   one JSON line.

WORD says what of the freed memory the C library keeps: `none` (it is left
alone), `small` (as the command line has it) or `large` (all). A process plans;
another runs, with the prior that comes with dreamjax and without pictures, and
its peak is compared. Then it gives back what is free and runs again, with all
programs compiled: by so much does the run alone raise its memory.
"""

from concurrent import futures
import ctypes
import gc
import json
import multiprocessing
import pathlib
import sys
import tempfile

import measure

from dreamjax import allocator
from dreamjax import memory
from dreamjax import options
from dreamjax import parallel
from dreamjax import toybox
from dreamjax import train
from dreamjax import workdir
from dreamjax.diffusion import weights


def _begin(words):
  """(word, config, parallel.Layout); the allocator does as the word says."""
  # Previews are programs of their own.
  wish = options.parse(
      [words[0], "--config.train.preview_every=0", *words[1:]],
      ["none", "small", "large"],
  )
  if wish.verb != "none":
    allocator.keep_freed_memory(large=wish.verb == "large")
  config = wish.config()
  return wish.verb, config, parallel.layout(1, config.train.views, 1)


def _plan(words):
  """MiB by line of the plan."""
  _, config, where = _begin(words)
  model, noise = weights.read_model(toybox.WEIGHTS, config.guidance.dtype)
  plan = memory.measure(config, model, noise, where)
  sizes = plan._asdict() | {"total": plan.total}
  del sizes["config"]
  return {name: round(size / 2**20) for name, size in sizes.items()}


def _run(words):
  """MiB that a run takes, with its process and without."""
  _, config, where = _begin(words)
  run = workdir.Run(config, ("a red mug",), 0, "none", ())

  def fit():
    prior = train.prepare(
        run, weights.load(toybox.WEIGHTS, config.guidance.dtype)
    )
    with tempfile.TemporaryDirectory() as folder:
      with workdir.open_for(run, folder) as store:
        train.fit(run, prior, store, where, pathlib.Path(folder), lambda: False)

  fit()
  peak = memory.resident("VmHWM")
  gc.collect()
  ctypes.CDLL(None).malloc_trim(0)
  before = memory.resident("VmRSS")
  pathlib.Path("/proc/self/clear_refs").write_text("5")  # Forgets the peak.
  fit()
  again = memory.resident("VmHWM") - before
  return {"peak": round(peak / 2**20), "again": round(again / 2**20)}


def main():
  results = []
  for part in (_plan, _run):
    with futures.ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn")
    ) as process:
      results.append(process.submit(part, sys.argv).result())
  planned, taken = results
  run_alone = planned["total"] - planned["process"]
  print(json.dumps({
      "keep": _begin(sys.argv)[0],
      "planned": planned,
      "measured": taken,
      "unit": "MiB",
      "ratio": round(planned["total"] / taken["peak"], 2),
      "ratio again": round(run_alone / taken["again"], 2),
      **measure.environment(),
  }))


if __name__ == "__main__":
  main()
