"""Run the `millpond` command as `python -m millpond`."""

import sys

from millpond import main

sys.exit(main())
