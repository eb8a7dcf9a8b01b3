"""`python -m flytekitplugins.inference`: the command line of this package."""

from __future__ import annotations

import sys

from .cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
