"""`python -m flyball` is the `flyball` command."""

from __future__ import annotations

import sys

from flyball.cli import main

if __name__ == "__main__":
    sys.exit(main())
