"""How our own time, memory and journal grow: with agents at once, a conversation's length, lessons in one session.

    python benchmarks/scale.py [--quick] [--profile] [--json FILE] [--png FILE]

All is real (assembly, loop, chat template, adapter, SDPO, rehearsal, journal, snapshots, both frontends' words) but the
model, which answers at once: scale_model.py. A correction is a proposal denied and learned from, the retry approved, run
and learned from (two lessons), and an answer. Time is CPU time of all threads; memory is tracemalloc's peak, in a run of
its own; files lie in memory where there is a /dev/shm.

Exit 1 where something grows faster than the size: by an exponent, fitted to the log-log curve, of more than 1.15, or by
more than 1.5 times as much an item between the two largest points as between the smaller ones (median).
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import io
import json
import pstats
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scale_model import MODEL, Service, make_tokenizer

import continualcode
from continualcode import Approve, Config, Deny, Message, ToolCall, hookimpl
from continualcode.approval import Callback
from continualcode.assembly import Additions, Assembly, build
from continualcode.backends import TinkerBackend
from continualcode.frontends.terminal.narrate import Narrator
from continualcode.frontends.terminal.progress import Progress
from continualcode.frontends.wire import event_message, write_line
from continualcode.hookspecs import Connection
from continualcode.journal import Journal
from continualcode.plugins import load_plugins
from continualcode.renderers import make_renderer

EXPONENT, PER_ITEM, REPEATED = 1.15, 1.5, 3
FILES = "/dev/shm" if Path("/dev/shm").is_dir() else None
PACKAGE = Path(continualcode.__file__).parent
SOURCE = [path.read_text() for path in sorted(PACKAGE.rglob("*.py"))]
DENIED = ToolCall("bash", {"cmd": "sed -i 's/a - b/a + b/' calc.py && python -m pytest -q tests/test_calc.py"})
APPROVED = [
    ToolCall("write", {"path": "calc.py", "content": f"def add(a, b):\n    return {sum}\n"})
    for sum in ("a + b", "b + a")
]


GATE = Callback(lambda turn, call: Deny("use write, so that I see it") if call.name == "bash" else Approve())


class Instant:
    """A plug-in: the backend `instant`, whose agents share one service."""

    def __init__(self) -> None:
        self.tokenizer = make_tokenizer(SOURCE)
        renderer, said = make_renderer(self.tokenizer), Message("assistant", "Done.")
        calls = [[Message("assistant", "", calls=(call,)) for call in (DENIED, right)] for right in APPROVED]
        replies = [renderer.completion(message) for pair in calls for message in (*pair, said)]
        self.service = Service(replies, len(self.tokenizer))

    async def connect(self, config: Config, progress: object) -> Connection:
        backend = await TinkerBackend.connect(self.service, model_name=MODEL, tokenizer=self.tokenizer)
        return Connection(backend, self.tokenizer, backend.close)

    @hookimpl
    def register_backends(self) -> Mapping[str, object]:
        return {"instant": self.connect}


class Session:
    """An agent whose events are told on a terminal and as JSON lines."""

    def __init__(self, assembly: Assembly) -> None:
        self.agent, self._screen = assembly.agent, io.StringIO()
        console = Console(file=self._screen, width=100)
        self._narrator = Narrator(console, Progress(console))

    async def correct(self) -> None:
        async for event in self.agent.run("make add() in calc.py return a + b"):
            write_line(event_message(event, kept=len(self.agent.pending)))
            self._narrator.tell(self.agent, event)
        self._screen.seek(0)
        self._screen.truncate()


class World(AsyncExitStack):
    """The sessions on one service; each has a workspace and a journal of its own, all share the state folder."""

    def __init__(self, instant: Instant) -> None:
        super().__init__()
        self.instant, self.journals = instant, list[Path]()
        self._folder = Path(self.enter_context(tempfile.TemporaryDirectory(dir=FILES)))

    @property
    def written(self) -> int:
        """Bytes in the journals."""
        return sum(path.stat().st_size for path in self.journals)

    async def session(self) -> Session:
        """A new one, with what is only ever done once behind it."""
        work, journal = (self._folder / f"{kind}{len(self.journals)}" for kind in ("work", "journal"))
        work.mkdir()
        self.journals.append(journal)
        state = self._folder / "state"
        config = Config(workspace=work, state_dir=state, backend="instant", model_name=MODEL, rehearse=2)
        manager = load_plugins(self.instant, Journal(journal), entry_points=False)
        made = Session(await self.enter_async_context(await build(config, manager, Additions(gates=[GATE]))))
        await made.correct()
        made.agent.clear()
        return made


Load = tuple[Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]
"""What is measured, and a part of the same for the profiler, in the state that it has left."""


async def agents(world: World, size: int) -> Load:
    """A correction by each of so many agents at once."""
    sessions = [await world.session() for _ in range(size)]

    def corrected(some: Sequence[Session]) -> Awaitable[object]:
        return asyncio.gather(*(session.correct() for session in some))

    return lambda: corrected(sessions), lambda: corrected(sessions[:32])


async def tokens(world: World, size: int) -> Load:
    """A correction behind a conversation of so many tokens: the package's source, read ten lines at a time."""
    session = await world.session()
    lines, said, read = "\n".join(SOURCE).split("\n"), list[Message](), 0
    for text in ("\n".join(lines[start : start + 10]) for start in range(0, len(lines), 10)):
        call = ToolCall("read", {"path": "source.py", "offset": len(said) * 5 + 1, "limit": 10})
        said += [Message("assistant", "", calls=(call,)), Message("tool", text, tool="read")]
        if (read := read + len(world.instant.tokenizer.encode(text)) + 50) >= size:
            break
    long = session.agent.conversation.add(Message("user", "read it"), *said)

    async def work() -> None:
        session.agent.conversation = long
        await session.correct()

    return work, work


async def lessons(world: World, size: int) -> Load:
    """So many lessons in one session, a new conversation for every two."""
    session = await world.session()

    async def learn(count: int) -> None:
        until = len(session.agent.reports) + count
        while len(session.agent.reports) < until:
            await session.correct()
            session.agent.clear()

    return lambda: learn(size), lambda: learn(min(size, 100))


Loads = Callable[[World, int], Awaitable[Load]]
CURVES: Mapping[Loads, Sequence[int]] = {
    agents: (1, 4, 16, 64, 256),
    tokens: (1_000, 4_000, 16_000, 64_000),
    lessons: (10, 100, 1_000, 10_000),
}
TRACED = {agents: 16, tokens: 64_000, lessons: 1_000}
"""The largest size at which memory is traced, which takes two to three times as long."""


@dataclass(frozen=True, slots=True)
class Point:
    """CPU seconds, seconds that passed, bytes of journal and of memory, where that was traced."""

    size: int
    cpu: float
    wall: float
    journal: int
    memory: int | None


async def point(loads: Loads, size: int, instant: Instant) -> tuple[Point, Mapping[Any, Any]]:
    """The best of as many times as are quick, then a little more under the profiler."""
    memory, found = None, list[tuple[float, float, int]]()
    if size <= TRACED[loads]:
        gc.collect()
        tracemalloc.start()
        async with World(instant) as place:
            await (await loads(place, size))[0]()
            memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    async with World(instant) as place:
        work, more = await loads(place, size)
        while len(found) < REPEATED and sum(wall for _, wall, _ in found) < 4:
            gc.collect()
            before = time.process_time(), time.perf_counter(), place.written
            await work()
            after = time.process_time(), time.perf_counter(), place.written
            found.append((after[0] - before[0], after[1] - before[1], after[2] - before[2]))
        with cProfile.Profile(time.thread_time) as profile:
            await more()
    return Point(size, *min(found), memory), pstats.Stats(profile).stats  # type: ignore[attr-defined]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """b of the value = a * size**b that fits best."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def last_items(sizes: Sequence[float], values: Sequence[float]) -> float:
    """What an item more costs between the two largest points, by the median of what it costs between the others."""
    *others, last = (np.diff(values) / np.diff(sizes)).tolist()
    return last / statistics.median(others)


def growth(points: Sequence[Point], what: str) -> tuple[str, bool]:
    """How one quantity grows, in words, and whether that is no faster than the size."""
    known = [(each.size, value) for each in points if (value := getattr(each, what)) is not None]
    sizes, values = zip(*known, strict=True)
    power, ratio = exponent(sizes, values), last_items(sizes, values)
    good = power <= EXPONENT and ratio <= PER_ITEM
    up_to = f"{what:7} up to {sizes[-1]:6,} grows as size^{power:.2f} (at most {EXPONENT})"
    return f"{up_to}, the last items cost {ratio:.2f} x (at most {PER_ITEM}): {'ok' if good else 'MISSED'}", good


def shares(calls: Mapping[Any, Any]) -> Counter[str]:
    """Seconds of a profile by our modules: what a module calls elsewhere is its own."""
    charged = Counter[str]()

    def charge(function: Any, seconds: float, seen: frozenset[Any]) -> None:
        file = Path(function[0])
        callers = {caller: row[3] for caller, row in calls[function][4].items() if caller not in seen}
        if file.is_relative_to(PACKAGE):
            charged[str(file.relative_to(PACKAGE))] += seconds
        elif file.name == "round_trips_server.py" or seconds < 1e-6 or not (whole := sum(callers.values())):
            charged["model, event loop, benchmark"] += seconds
        else:
            for caller, part in callers.items():
                charge(caller, seconds * part / whole, seen | {function})

    for function, row in calls.items():
        charge(function, row[2], frozenset())
    return charged


async def measure(
    loads: Loads, sizes: Sequence[int], instant: Instant, *, profiled: int = 0
) -> tuple[list[Point], bool]:
    """Measures and prints one curve; whether nothing grows too fast."""
    points, name = list[Point](), loads.__name__
    for size in sizes:
        found, calls = await point(loads, size, instant)
        points.append(found)
        memory = "" if found.memory is None else f", memory {found.memory / 1e6:.1f} MB"
        each = f"cpu {found.cpu:.3f} s ({1000 * found.cpu / size:.3f} ms each), {found.wall:.3f} s passed"
        print(f"{size:6,} {name}: {each}{memory}, journal {found.journal / 1e3:,.0f} kB", flush=True)
    grown = [growth(points, what) for what in ("cpu", "memory", "journal")]
    print(*(f"  {line}" for line, _ in grown), sep="\n")
    seconds = shares(calls)
    most = [f"{part} {100 * share / seconds.total():.0f} %" for part, share in seconds.most_common(5)]
    print(f"  at {size:,} {name} most time goes to {', '.join(most)}", flush=True)
    for (file, line, called), row in sorted(calls.items(), key=lambda each: -each[1][2])[:profiled]:
        print(f"  {row[2]:8.3f} s {row[1]:8} x {'/'.join(Path(file).parts[-2:])}:{line} {called}")
    return points, all(good for _, good in grown)


def plot(curves: Mapping[str, Sequence[Point]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(curves), figsize=(12, 4), layout="constrained")
    for axis, (name, points) in zip(axes, curves.items(), strict=True):
        for what, unit, scale in (("cpu", "ms", 1e-3), ("memory", "MB", 1e6), ("journal", "MB", 1e6)):
            known = [(each.size, value / scale) for each in points if (value := getattr(each, what)) is not None]
            axis.loglog(*zip(*known, strict=True), marker="o", label=f"{what}, {unit}")
        axis.set_xlabel(name)
        axis.legend()
    figure.savefig(path, dpi=150)


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the largest size of each curve")
    parser.add_argument("--profile", action="store_true", help="print the functions that take most there")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options, instant, began = parser.parse_args(), Instant(), time.perf_counter()
    curves, good = dict[str, list[Point]](), True
    for loads, sizes in CURVES.items():
        chosen, profiled = sizes[: -1 if options.quick else None], 15 if options.profile else 0
        curves[loads.__name__], fine = await measure(loads, chosen, instant, profiled=profiled)
        good = good and fine
    print(f"{time.perf_counter() - began:.0f} s in all")
    if options.json is not None:
        options.json.write_text(json.dumps(curves, default=asdict, indent=1) + "\n")
    if options.png is not None:
        plot(curves, options.png)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
