"""Runs the benchmarks, keeps what they print, and makes docs/benchmarks.md of it. Knows nothing of what they measure.

    python benchmarks/bench.py              the CPU set, < 30 minutes on two quiet cores (`make bench`)
    python benchmarks/bench.py NAME ...     these, whether they take long or not
    python benchmarks/bench.py --list       names and commands
    python benchmarks/bench.py --page       the page alone, from what is kept

Each is a command as a person types it, in the repository's root. What it prints is kept in docs/measured/NAME.txt, below
when, where and how it was run. The page is bench.md.in with that in the places of the names. Exit 1 where a target was missed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from string import Template

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MEASURED = DOCS / "measured"
TEXT = Path(__file__).with_name("bench.md.in")
PACKAGES = ("torch", "transformers", "tinker", "numpy")
MISSED = re.compile(r"\bMISSED\b|\*\*missed\*\*")


@dataclass(frozen=True, slots=True)
class Section:
    """A benchmark. `excerpt`: the page that it writes, and how the first line to be shown of it begins, and the first not to."""

    name: str
    command: str
    long: bool = False
    excerpt: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What a command printed, and when, where and how. `seconds` is "unknown" of one not run from here."""

    date: str
    command: str
    seconds: str
    status: str
    load: str
    machine: str
    versions: str
    output: str


ALONE = (
    "engine", "start", "correction_cost", "one_correction", "teachers", "cold_start", "test_runner", "search",
    "snapshots", "crash", "safety", "round_trips", "grading",
)  # fmt: skip
SECTIONS = (
    *(Section(name, f"python benchmarks/{name}.py") for name in ALONE),
    Section("scale", "python benchmarks/scale.py --png docs/scale.png"),
    Section(
        "how_it_works", "python benchmarks/how_it_works.py", excerpt=("how-it-works.md", "| | P(write)", "And for")
    ),
    Section("trainer_alone", "python examples/trainer_alone.py"),
    Section("corrections_quick", "python benchmarks/corrections.py --quick --json /dev/null"),
    Section(
        "corrections",
        "python benchmarks/corrections.py && python benchmarks/corrections.py --report",
        long=True,
        excerpt=("corrections.md", "| mean over", "Habit by habit"),
    ),
    Section(
        "auto_train",
        "rm -rf build/auto-train && python benchmarks/auto_train.py backend=local num_rollouts=8 batch_size=4 max_steps=12"
        " eval_every=12 log_path=build/auto-train 2>&1 && cp build/auto-train/plot.png docs/auto-train.png",
        long=True,
    ),
    Section("engine_peers", "make peers && python benchmarks/engine.py", long=True),
)
LEFT_OUT = {
    "bench": "runs the others",
    "peers": "run by engine.py",
    "round_trips_original": "run by round_trips.py",
    "round_trips_ours": "run by round_trips.py",
    "safety_swaps": "run by safety.py",
}
"""Programs in this folder without a section, and why."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    known = {section.name: section for section in SECTIONS}
    if unknown := sorted({*options.names} - {*known}):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    if options.list:
        print("\n".join(f"{each.name:18}{'long' if each.long else 'CPU':6}{each.command}" for each in SECTIONS))
        return 0
    chosen = [known[name] for name in options.names] or [section for section in SECTIONS if not section.long]
    good = True
    for section in [] if options.page else chosen:
        record = run(section)
        write(section, record)
        good &= verdict(section, record) == "ok"
        (DOCS / "benchmarks.md").write_text(page(), encoding="utf-8")
    (DOCS / "benchmarks.md").write_text(page(), encoding="utf-8")
    return 0 if good else 1


def run(section: Section) -> Record:
    """Runs its command, which is seen at work."""
    print(f"\n== {section.name}: {section.command}", flush=True)
    settings = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    date, load, started, lines = datetime.now(UTC), os.getloadavg()[0], time.perf_counter(), []
    given = {"shell": True, "cwd": ROOT, "env": {**os.environ, **settings}, "text": True}
    with subprocess.Popen(section.command, stdout=subprocess.PIPE, **given) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    return Record(
        f"{date:%Y-%m-%d %H:%M} UTC",
        section.command,
        f"{time.perf_counter() - started:.0f}",
        str(process.returncode),
        f"{load:.1f}",
        machine(),
        ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]),
        "\n".join(lines).strip("\n"),
    )


def machine() -> str:
    model = re.search(r"^model name\s*: (.*)", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = ".".join(platform.release().split(".")[:2])
    name = model[1].strip() if model else platform.machine()
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {kernel}"


def write(section: Section, record: Record) -> None:
    MEASURED.mkdir(exist_ok=True)
    head = "".join(f"{field.name}: {getattr(record, field.name)}\n" for field in fields(Record)[:-1])
    (MEASURED / f"{section.name}.txt").write_text(f"{head}\n{record.output}\n", encoding="utf-8")


def read(section: Section) -> Record | None:
    head, _, output = _text(MEASURED / f"{section.name}.txt").partition("\n\n")
    return (
        Record(**dict(line.split(": ", 1) for line in head.splitlines()), output=output.rstrip("\n")) if head else None
    )


def page() -> str:
    """The page, from nothing but what is kept."""
    records = {section: record for section in SECTIONS if (record := read(section)) is not None}
    bodies = {section.name: body(section, records.get(section)) for section in SECTIONS}
    return Template(_text(TEXT)).substitute(bodies, overview=overview(records), machines=machines(records))


def overview(records: Mapping[Section, Record]) -> str:
    rows = [
        f"| {section.name} | {'long' if section.long else 'CPU'} | {record.date} | {record.seconds} | {record.load} "
        f"| {verdict(section, record)} |"
        for section, record in records.items()
    ]
    quick = [record for section, record in records.items() if not section.long and record.seconds.isdigit()]
    total = sum(int(record.seconds) for record in quick) / 60
    timed = f"Commands of the CPU set, timed: {len(quick)} of {sum(not each.long for each in SECTIONS)}, {total:.0f} minutes in all."
    return "\n".join(["| | set | began | seconds | load before | |", "|---|---|---|---|---|---|", *rows, "", timed])


def machines(records: Mapping[Section, Record]) -> str:
    """Each machine with its versions, the one of most sections first."""
    found: dict[str, list[str]] = {}
    for section, record in records.items():
        found.setdefault(f"{record.machine}; {record.versions}", []).append(section.name)
    most, *others = sorted(found, key=lambda where: -len(found[where]))
    return "\n".join([f"- {most}", *(f"- {', '.join(found[where])}: {where}" for where in others)])


def verdict(section: Section, record: Record) -> str:
    if MISSED.search(shown(section, record)):
        return "**missed**"
    return "ok" if record.status == "0" else f"**failed: exit status {record.status}**"


def body(section: Section, record: Record | None) -> str:
    if record is None:
        return f"`{section.command}`\n\nNot measured yet: `python benchmarks/bench.py {section.name}`."
    bad = {"ok": "", "**missed**": ": **a target was missed**"}
    told = bad.get(outcome := verdict(section, record), f": {outcome}")
    text = shown(section, record)
    return f"`{record.command}`, {record.date[:10]}{told}\n\n{text if section.excerpt else fenced(text)}"


def shown(section: Section, record: Record) -> str:
    if section.excerpt is None:
        return record.output
    name, first, end = section.excerpt
    lines = itertools.dropwhile(lambda line: not line.startswith(first), _text(DOCS / name).splitlines())
    return "\n".join(itertools.takewhile(lambda line: not line.startswith(end), lines)).strip("\n")


def fenced(text: str) -> str:
    """Tables as they are, and everything else in a fence."""
    return "\n\n".join(_blocks(text))


def _blocks(text: str) -> Iterator[str]:
    for table, lines in itertools.groupby(text.splitlines(), lambda line: line.startswith("|")):
        block = "\n".join(lines).strip("\n")
        if block:
            yield block if table else f"```\n{block}\n```"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
