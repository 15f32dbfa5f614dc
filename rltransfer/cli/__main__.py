"""`python -m rltransfer.cli` is `rltransfer`."""

from __future__ import annotations

import sys

from rltransfer.cli.main import main

sys.exit(main())
