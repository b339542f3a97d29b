"""`python -m mezo.cli`, where the script is not installed."""

import sys

from mezo.cli import main

sys.exit(main())
