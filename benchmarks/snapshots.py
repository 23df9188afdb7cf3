"""What a snapshot for undo costs, by the number of files: python benchmarks/snapshots.py [2000 20000 ...]

The first copies every file (8 kB here); afterwards nothing has changed, and the best of five is told.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from continualcode.tools import Workspace
from continualcode.tools.snapshots import Snapshots
from continualcode.types import ToolCall

CALL = ToolCall("bash", {"cmd": "true"})


def main(counts: list[int]) -> None:
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "work")
            fill(root, count)
            first, before, after = measure(Snapshots(Workspace(root), Path(folder, "state")))
        print(f"{count:6} files: the first {first:.2f} s, then {before:.3f} s before and {after:.3f} s after a call")


def measure(snapshots: Snapshots) -> tuple[float, float, float]:
    """Seconds of the first snapshot, and of those before and after a call that changes nothing."""
    first = seconds(lambda: snapshots.begin(CALL))
    snapshots.finish()
    time.sleep(2.1)  # what was only just written is read twice
    rounds = [(seconds(lambda: snapshots.begin(CALL)), seconds(snapshots.finish)) for _ in range(6)][1:]
    return first, min(before for before, _ in rounds), min(after for _, after in rounds)


def fill(root: Path, count: int) -> None:
    (root / ".git").mkdir(parents=True)
    (root / ".gitignore").write_text("*.pyc\n__pycache__/\n/build/\nnode_modules/\n*.log\n")
    for number in range(count):
        path = root / f"package{number // 100}" / f"part{number // 20 % 5}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(os.urandom(4000).hex())


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [2000, 20000])
