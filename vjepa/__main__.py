"""`python -m vjepa`, the same as `vjepa`."""

import sys

from vjepa.commands.app import main

if __name__ == "__main__":
    sys.exit(main())
