"""From the command to the first prompt, and the memory taken by then, on the embedded model fetched before.

python benchmarks/start.py
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import pexpect

PROGRAM = Path(sys.executable).with_name("continualcode")
SECONDS, GB = 6.0, 1.5


def main() -> int:
    times, memory = [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            child = pexpect.spawn(str(PROGRAM), [f"state_dir={folder}/state", "backend=local"], cwd=folder, timeout=120)
            child.expect("> ")
            times.append(time.perf_counter() - started)
            memory.append(_resident_gb(child.pid))
            child.close(force=True)
    seconds, taken = statistics.median(times), statistics.median(memory)
    print(
        f"{'ok    ' if seconds < SECONDS else 'MISSED'} to the first prompt: {seconds:.1f} s (target < {SECONDS:.0f})"
    )
    print(f"{'ok    ' if taken < GB else 'MISSED'} resident memory: {taken:.2f} GB (target < {GB})")
    return 0 if seconds < SECONDS and taken < GB else 1


def _resident_gb(pid: int) -> float:
    [line] = [row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("VmRSS")]
    return int(line.split()[1]) * 1024 / 1e9


if __name__ == "__main__":
    sys.exit(main())
