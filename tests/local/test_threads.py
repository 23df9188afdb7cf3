"""Work takes the idle cores only."""

import subprocess
import sys

import torch

from continualcode.local import threads


def test_a_busy_neighbour_takes_its_core(tmp_path, monkeypatch):
    load = tmp_path / "loadavg"
    monkeypatch.setattr(threads, "_LOAD", load)
    monkeypatch.setattr(threads, "_MOST", 4)
    before = torch.get_num_threads()
    try:
        for running, expected in ((1, 4), (3, 2), (9, 1)):
            load.write_text(f"0.5 0.4 0.3 {running}/200 1234\n")
            threads.fit_threads()
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_a_real_busy_process_is_seen():
    if not threads._LOAD.exists():
        assert threads.busy_elsewhere() == 0
        return
    spin = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert any(threads.busy_elsewhere() >= 1 for _ in range(50))
    finally:
        spin.kill()
        spin.wait()
