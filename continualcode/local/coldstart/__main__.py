"""`python -m continualcode.local.coldstart [FOLDER]`: makes the adapter anew, by default where the shipped one lies."""

import sys
from pathlib import Path

from continualcode.local.coldstart.train import ADAPTER, train

if __name__ == "__main__":
    train(Path(sys.argv[1]) if len(sys.argv) > 1 else ADAPTER)
