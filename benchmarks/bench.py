"""Runs the benchmarks, keeps what they print, and makes docs/benchmarks.md of it. Knows nothing of what they measure.

    python benchmarks/bench.py              the CPU set, < 30 minutes on two quiet cores (`make bench`)
    python benchmarks/bench.py NAME ...     these, whether they take long or not
    python benchmarks/bench.py --list       names and commands
    python benchmarks/bench.py --page       the page alone, from what is kept

The page's text is bench.md.in, in which {{NAME: COMMAND}} stands for a benchmark: a command as a person types it, in the
repository's root, and what it printed. That is kept in docs/measured/NAME.txt, below when, where and how it was run.
{{NAME long: COMMAND}} is run by name only; COMMAND -> PAGE 'FIRST' 'LAST' shows what it wrote to that page, from the line that
begins with FIRST to before the one with LAST. Exit 1 where a target was missed.
"""

from __future__ import annotations

import argparse
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
from itertools import dropwhile, groupby, takewhile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MEASURED = DOCS / "measured"
TEXT = Path(__file__).with_name("bench.md.in")
PLACE = re.compile(r"^\{\{(\w+)( long)?: (.+?)(?: -> (\S+) '(.+)' '(.+)')?\}\}$", re.MULTILINE)
PACKAGES = ("torch", "transformers", "tinker", "numpy")
MISSED = re.compile(r"\bMISSED\b|\*\*missed\*\*")


@dataclass(frozen=True, slots=True)
class Section:
    """A benchmark, as it stands in the text."""

    name: str
    long: str
    command: str
    page: str = ""
    first: str = ""
    last: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What a command printed, and when, where and how. `seconds` and `load` are "unknown" where it was not run from here."""

    date: str
    command: str
    seconds: str
    status: str
    load: str
    machine: str
    versions: str
    output: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    known = {section.name: section for section in sections()}
    if unknown := sorted({*options.names} - {*known}):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    if options.list:
        print("\n".join(f"{each.name:18}{'long' if each.long else 'CPU':6}{each.command}" for each in known.values()))
        return 0
    chosen = [known[name] for name in options.names] or [each for each in known.values() if not each.long]
    verdicts = set()
    try:
        for section in [] if options.page else chosen:
            write(section, record := run(section))
            verdicts.add(verdict(section, record))
    finally:
        (DOCS / "benchmarks.md").write_text(page(), encoding="utf-8")
    return 0 if verdicts <= {"ok"} else 1


def sections() -> list[Section]:
    return [Section(*match.groups(default="")) for match in PLACE.finditer(_text(TEXT))]


def run(section: Section) -> Record:
    """Runs its command, which is seen at work."""
    print(f"\n== {section.name}: {section.command}", flush=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
    date, load, started, lines = datetime.now(UTC), os.getloadavg()[0], time.perf_counter(), []
    command = ["/bin/sh", "-c", section.command]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip().replace(str(ROOT), "."))
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
    values = dict(line.split(": ", 1) for line in head.splitlines())
    return Record(**values, output=output.rstrip("\n")) if values else None


def page() -> str:
    """The page, from nothing but what is kept."""
    records = {section: record for section in sections() if (record := read(section)) is not None}
    text = PLACE.sub(lambda match: body(Section(*match.groups(default="")), records), _text(TEXT))
    return text.replace("{{overview}}", overview(records)).replace("{{machines}}", machines(records))


def body(section: Section, records: Mapping[Section, Record]) -> str:
    if (record := records.get(section)) is None:
        return f"`{section.command}`\n\nNot measured yet: `python benchmarks/bench.py {section.name}`."
    result, text = verdict(section, record), shown(section, record)
    told = {"ok": "", "**missed**": ": **a target was missed**"}.get(result, f": {result}")
    return f"`{record.command}`, {record.date[:10]}{told}\n\n{text if section.page else fenced(text)}"


def overview(records: Mapping[Section, Record]) -> str:
    rows = ["| | set | began | seconds | load before | |", "|---|---|---|---|---|---|"]
    for section, record in records.items():
        told = (record.date, record.seconds, record.load, verdict(section, record))
        rows.append(f"| {section.name} | {'long' if section.long else 'CPU'} | {' | '.join(told)} |")
    quick = [section for section in sections() if not section.long]
    timed = [int(records[each].seconds) for each in quick if each in records and records[each].seconds.isdigit()]
    total = f"The CPU set: {len(timed)} of {len(quick)} commands are timed, {sum(timed) / 60:.0f} minutes in all."
    return "\n".join([*rows, "", total])


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


def shown(section: Section, record: Record) -> str:
    if not section.page:
        return record.output
    lines = dropwhile(lambda line: not line.startswith(section.first), _text(DOCS / section.page).splitlines())
    return "\n".join(takewhile(lambda line: not line.startswith(section.last), lines)).strip("\n")


def fenced(text: str) -> str:
    """Tables as they are, and everything else in a fence."""
    return "\n\n".join(_blocks(text))


def _blocks(text: str) -> Iterator[str]:
    for table, lines in groupby(text.splitlines(), lambda line: line.startswith("|")):
        if block := "\n".join(lines).strip("\n"):
            yield block if table else f"```\n{block}\n```"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
