"""Run the `tcvq` command as ``python -m tcvq_runner``."""

import sys

from tcvq_runner.cli import main

sys.exit(main())
