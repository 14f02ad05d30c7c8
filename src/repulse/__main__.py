"""`python -m repulse` is `repulse`."""

import sys

from repulse.cli import main

sys.exit(main())
