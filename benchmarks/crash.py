"""Kills a scripted run at many points and looks at what is left: python benchmarks/crash.py [--points 50] [--seed 0]

Every odd point is the moment before a random file operation of the process (open, rename, remove, ...), every even one
a random time. The run reads, edits, writes, runs commands, has calls denied and learned from, and takes calls back.
Afterwards, in a new session: files are as before or after a call (of a command, after taking back what it had begun),
nothing denied has run, the journal loads as a beginning of the whole run's, undo leads back to the first state.
Needs a system that forks; no torch.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from continualcode import Approve, Config, Deny, ToolCall, Turn, hookimpl
from continualcode.assembly import Additions, Assembly, build
from continualcode.hookspecs import Connection
from continualcode.journal import Journal
from continualcode.plugins import load_plugins
from continualcode.testing import BytesRenderer, ScriptedBackend
from continualcode.types import Json

CALC = "def add(a, b):\n    return a - b\n"
SCRIPT: list[str | tuple[str, dict[str, Json]]] = [
    ("read", {"path": "calc.py"}),
    ("write", {"path": "DENIED", "content": "x"}),
    ("edit", {"path": "calc.py", "old": "a - b", "new": "a + b"}),
    ("bash", {"cmd": "touch DENIED"}),
    ("write", {"path": "new/deep/file.txt", "content": "made\n"}),
    ("bash", {"cmd": "printf 1 > one; sleep 0.1; mv calc.py moved.py; rm -r old; sleep 0.1; printf 2 > two"}),
    ("edit_lines", {"path": "new/deep/file.txt", "start_line": 1, "end_line": 1, "content": "changed"}),
    "done",
]
OPERATIONS = {"open", "fcntl.flock", "subprocess.Popen", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}
OPERATIONS |= {"os.scandir", "os.listdir", "os.symlink", "os.kill", "os.killpg"}
Files = Mapping[str, str]


class Gate:
    """Denies what makes the file DENIED, with a reason that is learned, and approves the rest."""

    async def review(self, turn: Turn, call: ToolCall) -> Approve | Deny:
        return Deny("not that") if "DENIED" in call.to_json() else Approve()


class Scripted:
    """A plug-in: the backend that says SCRIPT, and its renderer."""

    async def connect(self, config: Config, progress: object) -> Connection:
        async def close() -> None:
            pass

        return Connection(ScriptedBackend(SCRIPT), None, close)

    @hookimpl
    def register_backends(self) -> Mapping[str, object]:
        return {"scripted": self.connect}

    @hookimpl
    def register_renderers(self) -> Mapping[str, object]:
        return {"bytes": lambda tokenizer, model_name: BytesRenderer()}


@dataclass
class Place:
    """A workspace and a state folder of its own."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Place:
        (folder / "work/old/empty").mkdir(parents=True)
        (folder / "work/calc.py").write_text(CALC)
        (folder / "work/old/b.bin").write_bytes(bytes(range(256)))
        return cls(folder)

    async def session(self, name: str) -> Assembly:
        config = Config(
            workspace=self.folder / "work",
            state_dir=self.folder / "state",
            backend="scripted",
            renderer="bytes",
            seed=0,
        )
        manager = load_plugins(Scripted(), Journal(self.folder / f"{name}.jsonl"), entry_points=False)
        return await build(config, manager, Additions(gates=[Gate()]))

    def files(self) -> Files:
        """Everything in the workspace: mode, and content or kind."""
        root = self.folder / "work"
        paths = sorted(root.rglob("*"))
        return {
            str(path.relative_to(root)): f"{path.lstat().st_mode:o} {path.read_bytes()!r}"
            if path.is_file()
            else f"{path.lstat().st_mode:o}"
            for path in paths
        }

    def events(self, name: str) -> list[str]:
        """What the journal tells; a last line that was being written when the process died does not count."""
        path = self.folder / f"{name}.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [_said(json.loads(line)) for line in lines]


async def story(place: Place, states: list[Files]) -> None:
    """The run, and then undo, redo and undo; appends every state that the files come to."""
    states.append(place.files())
    assembly = await place.session("first")
    async for event in assembly.agent.run("go"):
        if type(event).__name__ == "ToolReturned":
            states.append(place.files())
    for turn in (assembly.agent.undo, assembly.agent.undo, assembly.agent.redo):
        await turn()
        states.append(place.files())
    await assembly.close()


async def problems_of(place: Place, states: list[Files], events: list[str]) -> list[str]:
    """What is wrong with what the killed process left, once a new session has begun."""
    found = []
    if (told := place.events("first")) != events[: len(told)]:
        found.append(f"the journal tells another story: {told[-3:]}")
    assembly = await place.session("second")
    agent = assembly.agent
    assert agent.snapshots is not None
    recovered = agent.snapshots.recovered
    if any(change.call.startswith("bash") for change in recovered):
        await agent.undo()
    if place.files() not in states:
        found.append(f"files are in no state between calls: {sorted(place.files())}, recovered {recovered}")
    while await agent.undo() is not None:
        pass
    if place.files() != states[0]:
        found.append(f"undo does not lead back to the beginning but to {place.files()}")
    await assembly.close()
    return found


def survives(
    states: list[Files], events: list[str], point: int | None, seconds: float | None
) -> tuple[bool, list[str]]:
    """Whether the process was killed before its end, and what was wrong afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place.make(Path(folder))
        child = os.fork()
        if child == 0:
            if point is not None:
                kill_at(point)
            asyncio.run(story(place, []))
            os._exit(0)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        wait_for_orphans(Path(folder))
        return killed, asyncio.run(problems_of(place, states, events))


def kill_at(point: int) -> None:
    """This process dies just before its `point`-th file operation from now."""
    left = point

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in OPERATIONS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def count_operations(place: Place) -> int:
    """How many file operations the whole story takes, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            count += event in OPERATIONS

        sys.addaudithook(hook)
        asyncio.run(story(place, []))
        os.write(writing, str(count).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(reading, 100))


def wait_for_orphans(folder: Path) -> None:
    """A command may outlive the process that ran it by a moment."""
    until = time.monotonic() + 5
    while time.monotonic() < until and any(_is_in(link, folder) for link in Path("/proc").glob("[0-9]*/cwd")):
        time.sleep(0.02)


def _is_in(link: Path, folder: Path) -> bool:
    try:
        return Path(os.readlink(link)).is_relative_to(folder)
    except OSError:
        return False


def _said(line: dict[str, object]) -> str:
    """An event without what differs between two runs."""
    if line["event"] in ("Learned", "Learning"):
        return str(line["event"])
    return json.dumps({key: value for key, value in line.items() if key not in ("time", "turn", "reply")})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as counted:
        operations = count_operations(Place.make(Path(counted)))
        place, states = Place.make(Path(whole)), list[Files]()
        started = time.perf_counter()
        asyncio.run(story(place, states))
        seconds, events = time.perf_counter() - started, place.events("first")
    print(f"{len(states)} states, {len(events)} events, {operations} file operations, {seconds:.2f} s")
    killed = failed = 0
    for number in range(options.points):
        point = chance.randint(1, operations) if number % 2 else None
        pause = None if number % 2 else chance.uniform(0, 0.9 * seconds)
        died, problems = survives(states, events, point, pause)
        killed, failed = killed + died, failed + bool(problems)
        for problem in problems:
            print(f"point {number} ({f'operation {point}' if point else f'{pause:.3f} s'}): {problem}")
    print(
        f"killed {killed} of {options.points}; {options.points - failed} of {options.points} left all as it should be"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
