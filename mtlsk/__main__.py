"""python -m mtlsk."""

import sys

from mtlsk.cli import main

if __name__ == "__main__":
    sys.exit(main())
