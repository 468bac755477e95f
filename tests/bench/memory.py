"""What `dreamjax plan` foretells against what a run takes on a CPU.

Command:  python tests/bench/memory.py [keep] [--config.GROUP.FIELD=VALUE ...]
Result:   one JSON line.

The run is made twice in one process, with the prior that comes with dreamjax
and without pictures. The first leaves all programs compiled; then what the
process has freed is given back to the system, and the second is measured: the
peak of its resident memory, over what the process held before it. `keep` has
the C library keep freed memory, as the command line does: then what was in use
at different times counts together.
"""

import ctypes
import gc
import json
import pathlib
import sys
import tempfile

import measure

from dreamjax import allocator
from dreamjax import options
from dreamjax import parallel
from dreamjax import plan
from dreamjax import toybox
from dreamjax import train
from dreamjax import workdir
from dreamjax.diffusion import weights


def _resident(name):
  """Bytes of the process: VmRSS now, VmHWM at the most."""
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith(f"{name}:"):
      return 1024 * int(line.split()[1])


def _fit(run, where):
  """A whole run, from the weights to the last checkpoint."""
  prior = train.prepare(
      run, weights.load(toybox.WEIGHTS, run.config.guidance.dtype)
  )
  with tempfile.TemporaryDirectory() as folder:
    with workdir.open_for(run, folder) as store:
      train.fit(run, prior, store, where, pathlib.Path(folder), lambda: False)


def main():
  # Previews are programs of their own.
  words = [sys.argv[0], "--config.train.preview_every=0", *sys.argv[1:]]
  wish = options.parse(words, ["free", "keep"])
  if wish.verb == "keep":
    allocator.keep_freed_memory()
  config = wish.config()
  where = parallel.layout(1, config.train.views, 1)
  model, noise = weights.read_model(toybox.WEIGHTS, config.guidance.dtype)
  planned = plan.measure(config, model, noise, where)
  run = workdir.Run(config, ("a red mug",), 0, "none")
  _fit(run, where)
  gc.collect()
  ctypes.CDLL(None).malloc_trim(0)
  before = _resident("VmRSS")
  pathlib.Path("/proc/self/clear_refs").write_text("5")  # Forgets the peak.
  _fit(run, where)
  measured = _resident("VmHWM") - before
  print(json.dumps({
      "allocator": wish.verb,
      "planned": round(planned.total / 2**20),
      "measured": round(measured / 2**20),
      "unit": "MiB",
      "ratio": round(planned.total / measured, 2),
      "before": round(before / 2**20),
      **measure.environment(),
  }))


if __name__ == "__main__":
  main()
