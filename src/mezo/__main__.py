"""`python -m mezo`: the `mezo` command where the script is not installed, or where torchrun starts it."""

import sys

from mezo.cli import main

if __name__ == "__main__":
    sys.exit(main())
