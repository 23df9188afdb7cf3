"""What a correction costs over a network: requests, latencies waited for one after the other, bytes, wall time.

    python benchmarks/round_trips.py [corrections=7] [chains=yes]

From the verdict "no, because ..." to the retry's proposal, beside continualcode 0.6.0 (`make original` installs it; without
it ours alone is measured). Both run in processes of their own over the official Tinker client against a server on
loopback that waits 0, 50 or 200 ms before it answers a request, and whose model answers at once: the wall time is the
protocol's and the client's own. A prompt of 1,200 tokens (the original's own is past 1,000) and a completion of 60, the
same tokenizer. Medians, the first correction a warm-up. "serial" is the longest chain of requests of which each came after
the answer to the one before: what the wall time holds of latencies (without latency, that is no dependence). Bytes are
those of the bodies. Heartbeats and the like are left out.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from round_trips_original import COMPLETION
from round_trips_server import InstantService, Request, longest_chain, start, within
from transformers import AutoTokenizer

from continualcode.local.pretrained import DEFAULT_MODEL, resolve

HERE = Path(__file__).parent
ORIGINAL = HERE.parent / ".venv-original" / "bin" / "python"
LATENCIES = (0.0, 0.05, 0.2)
NEEDED = 8
"""Requests in the chain: score, fetch it; forward_backward, optim_step and save, which the SDK submits one after the
other, fetch the sampler; sample, fetch it."""
TARGET = 0.6
CALL = '<tool_call>\n{"name": "write", "arguments": {"path": "calc.py", "content": "%s"}}\n</tool_call><|im_end|>'


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one correction; medians."""

    seconds: float
    requests: int
    serial: int
    up: int
    down: int
    chain: tuple[str, ...]


def main() -> int:
    settings = dict(argument.split("=") for argument in sys.argv[1:])
    count = int(settings.get("corrections", 7))
    folder = resolve(DEFAULT_MODEL)
    script, vocabulary = _script(folder)
    programs = {
        "ours, K = 20": [sys.executable, HERE / "round_trips_ours.py", "URL", count + 1],
        "ours, sampled token": [sys.executable, HERE / "round_trips_ours.py", "URL", count + 1, "sampled"],
    }
    if ORIGINAL.exists():
        programs["continualcode 0.6.0"] = [ORIGINAL, "-I", HERE / "round_trips_original.py", "URL", folder, count + 1]
    print("| latency | program | wall | requests | serial | up | down |\n|---|---|---|---|---|---|---|")
    costs: dict[tuple[str, float], Cost] = {}
    for latency in LATENCIES:
        for name, command in programs.items():
            costs[name, latency] = cost = _measured(command, InstantService(script, vocabulary, folder), latency)
            print(
                f"| {latency * 1e3:.0f} ms | {name} | {cost.seconds * 1e3:.0f} ms | {cost.requests} "
                f"| {cost.serial if latency else '-'} | {cost.up / 1e3:.1f} kB | {cost.down / 1e3:.1f} kB |",
                flush=True,
            )
    if "chains" in settings:
        for name in programs:
            print(f"\n{name}: {' > '.join(costs[name, LATENCIES[-1]].chain)}")
    return 0 if _met(costs) else 1


def _met(costs: dict[tuple[str, float], Cost]) -> bool:
    """Prints how each target was met."""
    verdicts = []
    ours = [name for name, latency in costs if name.startswith("ours") and latency == 0.05]
    for name in ours:
        cost = costs[name, 0.05]
        verdicts.append((cost.serial <= NEEDED, f"{name}: {cost.serial} serial requests, {NEEDED} needed"))
        if (original := costs.get(("continualcode 0.6.0", 0.05))) is not None:
            ratio = cost.seconds / original.seconds
            verdicts.append((ratio <= TARGET, f"{name}: {ratio:.0%} of the original's wall time, at most {TARGET:.0%}"))
    for met, text in verdicts:
        print(f"{'ok    ' if met else 'MISSED'} {text} (50 ms)")
    return all(met for met, _ in verdicts)


def _measured(command: Sequence[object], service: InstantService, latency: float) -> Cost:
    server = start(service)
    server.latency = latency
    try:
        words = [server.url if word == "URL" else str(word) for word in command]
        ran = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=_environment())
        times: list[tuple[float, float]] = json.loads(ran.stdout.splitlines()[-1])[1:]
        return _cost(times, server.requests)
    finally:
        server.die()


def _cost(times: Sequence[tuple[float, float]], requests: Sequence[Request]) -> Cost:
    each = [within(requests, *span) for span in times]
    chains = [longest_chain(inside) for inside in each]
    median = statistics.median_low
    return Cost(
        seconds=statistics.median(ended - began for began, ended in times),
        requests=median(len(inside) for inside in each),
        serial=median(len(chain) for chain in chains),
        up=median(sum(request.up for request in inside) for inside in each),
        down=median(sum(request.down for request in inside) for inside in each),
        chain=tuple(request.name for request in chains[-1]),
    )


def _environment() -> dict[str, str]:
    """Without anybody's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONTINUALCODE_", "TINKER_"))}
    return {**kept, "XDG_CONFIG_HOME": os.devnull, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _script(folder: str) -> tuple[list[int], int]:
    """The reply that is always sampled: a call of COMPLETION tokens, stop included."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    for words in range(COMPLETION):
        tokens = tokenizer.encode(CALL % (" the" * words), add_special_tokens=False)
        if len(tokens) == COMPLETION:
            return tokens, len(tokenizer)
    raise SystemExit(f"no call of {COMPLETION} tokens")


if __name__ == "__main__":
    sys.exit(main())
