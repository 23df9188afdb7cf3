"""`python -m continualcode`."""

import sys

from continualcode.cli import main

if __name__ == "__main__":
    sys.exit(main())
