"""``python -m search`` is the same as ``lrf-search``."""

import sys

from search.cli import main

sys.exit(main())
