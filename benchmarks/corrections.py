"""What a correction teaches and what it costs: habits of the embedded model, corrected in several ways side by side.

    python benchmarks/corrections.py [--quick] [--habits a,b] [--arms x,y] [--variants] [--set name=value] [--json FILE] [--report]

Every arm starts from the same weights. Measured on 10 held-out requests a habit and 24 unrelated ones, in a new conversation: does
the greedy call comply, how probable is the complying choice (exact), what else changed. Everything is seeded. The result
goes to FILE (default .corrections.json), habit by habit, and from there with --report to docs/corrections.md and .png;
--more adds to what FILE already has.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import json
import logging
import os
import shlex
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corrections_arms import ARMS, DEFAULTS, MODEL, SEED, Bench, gaps, say, sequence, variants
from corrections_habits import HABITS, SEQUENCE
from corrections_measure import Examiner
from corrections_report import write_report

from continualcode.backends import TinkerBackend
from continualcode.local import ServiceClient
from continualcode.local.coldstart.train import opening
from continualcode.renderers import make_renderer

QUICK = ("base", "ours")


async def run(options: argparse.Namespace) -> None:
    results = json.loads(options.json.read_text()) if options.more and options.json.exists() else {"habits": {}}
    results["command"] = " ".join(["python benchmarks/corrections.py", *map(shlex.quote, sys.argv[1:])])
    with tempfile.TemporaryDirectory() as scratch, ServiceClient(state_dir=scratch) as service:
        first = await TinkerBackend.connect(service, model_name=MODEL, lora_rank=DEFAULTS["lora_rank"], seed=SEED)
        given = options.set, options.corrections, options.approved
        bench = Bench(service, Examiner(make_renderer(first.tokenizer), opening()), first, *given)
        for habit in options.habits:
            rows = results["habits"].setdefault(habit.name, {"kind": habit.kind, "reason": habit.reason, "arms": {}})
            for arm in options.arms:
                async for label, row in ARMS[arm](bench, habit):
                    say(habit.name, label, row)
                    rows["arms"][label] = asdict(row)
            results["load"] = os.getloadavg()[2]
            options.json.write_text(json.dumps(results, indent=1) + "\n")
        if options.variants:
            results["gaps"] = await gaps(bench, HABITS)
            results["variants"] = await variants(bench, SEQUENCE)
            options.json.write_text(json.dumps(results, indent=1) + "\n")
        if options.sequence:
            results["sequence"] = await sequence(bench, SEQUENCE)
            options.json.write_text(json.dumps(results, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--habits", type=lambda text: text.split(","), help="names; default: all")
    parser.add_argument("--arms", type=lambda text: text.split(","), default=list(ARMS), help=", ".join(ARMS))
    parser.add_argument("--quick", action="store_true", help="four habits, one correction of ours each")
    parser.add_argument("--sequence", action=argparse.BooleanOptionalAction, help="four habits one after another")
    parser.add_argument("--variants", action="store_true", help="four habits learned with other settings")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of SDPOConfig, for ours")
    parser.add_argument("--corrections", type=int, choices=range(1, 5), help="of ours; default 4, 1 with --quick")
    parser.add_argument(
        "--approved", type=int, default=0, help="approved turns of the session before the first correction"
    )
    parser.add_argument("--json", type=Path, default=Path(".corrections.json"))
    parser.add_argument("--more", action="store_true", help="add to the results in the file")
    parser.add_argument(
        "--report", action="store_true", help="write docs/corrections.md and .png from the file, run nothing"
    )
    options = parser.parse_args()
    known = {habit.name: habit for habit in HABITS}
    names = options.habits or ([habit.name for habit in SEQUENCE] if options.quick else list(known))
    if unknown := [*(set(names) - set(known)), *(set(options.arms) - set(ARMS))]:
        parser.error(
            f"unknown: {', '.join(unknown)}; there are the habits {', '.join(known)} and the arms {', '.join(ARMS)}"
        )
    if options.sequence is None:
        options.sequence = not options.quick and options.habits is None
    options.corrections = options.corrections or (1 if options.quick else 4)
    options.arms = [arm for arm in options.arms if not options.quick or arm in QUICK]
    options.habits = [known[name] for name in names]
    options.set = {name: _value(text) for name, _, text in (item.partition("=") for item in options.set)}
    return options


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main() -> None:
    options = _options()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    if not options.report:
        asyncio.run(run(options))
    else:
        write_report(json.loads(options.json.read_text()), Path(__file__).parents[1] / "docs")


if __name__ == "__main__":
    sys.exit(main())
