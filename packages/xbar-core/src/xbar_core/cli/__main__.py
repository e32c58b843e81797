"""Run the `xbar` command as ``python -m xbar_core.cli``."""

from __future__ import annotations

import sys

from xbar_core.cli import main

sys.exit(main())
