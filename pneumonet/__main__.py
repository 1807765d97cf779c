"""`python -m pneumonet`."""

import sys

from pneumonet.cli import main

sys.exit(main())
