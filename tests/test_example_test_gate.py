"""The example of a gate that runs the tests, run as a person would."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "examples" / "test_gate.py"


def test_it_denies_what_breaks_the_test_and_lets_the_right_edit_through(tmp_path):
    ran = subprocess.run([sys.executable, EXAMPLE], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    assert re.findall(r"^  (\w+): ", ran.stdout, re.MULTILINE) == ["ApproveAll", "TestRunner", "ApproveAll"]
    assert "\nE   assert -1 == 3\n" in ran.stdout
    assert len(EXAMPLE.read_text().splitlines()) <= 40
