"""A process killed at any point leaves files, conversation and undo as they should be; all of it: benchmarks/crash.py."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CRASH = Path(__file__).parent.parent / "benchmarks" / "crash.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_ten_kills_lose_nothing_and_run_nothing_denied():
    run = subprocess.run(
        [sys.executable, CRASH, "--points", "10", "--seed", "7"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    killed = re.search(r"killed (\d+) of 10; 10 of 10 left all as it should be", run.stdout)
    assert killed is not None, run.stdout
    assert int(killed[1]) >= 5
