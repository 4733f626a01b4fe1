"""`python -m vjepa`, the same as `vjepa`."""

import sys

from vjepa.cli import main

if __name__ == "__main__":
    sys.exit(main())
