"""The command line: flags -> config -> weights -> fit -> files."""

import signal
import sys
from typing import Sequence

from dreamjax import allocator
from dreamjax import commands
from dreamjax import compiler
from dreamjax import options as options_lib

_VERBS = {
    "fit": commands.fit,
    "sample": commands.sample,
    "render": commands.render,
    "export": commands.export,
    "evaluate": commands.evaluate,
    "plan": commands.plan,
    "profile": commands.profile,
    "doctor": commands.doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit code."""
  argv = list(sys.argv if argv is None else argv)
  for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(errors="backslashreplace")  # LANG=C has no umlauts.
  try:
    if any(word in ("-h", "-help", "--help") for word in argv[1:]):
      print(options_lib.help_text())
      return commands.OK
    options = options_lib.parse(argv, list(_VERBS))
    allocator.keep_freed_memory(large=False)
    # A plan counts what compiling takes.
    compiler.configure(keep=options.verb != "plan")
    return _VERBS[options.verb](options)
  except options_lib.InputError as error:
    print(f"dreamjax: {error}", file=sys.stderr)
    return commands.BAD_INPUT
  except KeyboardInterrupt:
    return 128 + signal.SIGINT
