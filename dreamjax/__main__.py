"""`python -m dreamjax` is the command `dreamjax`."""

import sys

from dreamjax import main

if __name__ == "__main__":
  sys.exit(main.main())
