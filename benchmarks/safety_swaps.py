"""What is swapped for something else between the approval of a call and the moment it writes."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safety_corpus import WRITING, file_call
from safety_world import HANG, Outcome, World, run

from continualcode.tools import ToolRegistry, standard_tools
from continualcode.types import Approve, ToolCall, Turn

Swap = Callable[[World, Path], None]


class ApproveThen:
    """Approves, and does something before the agent goes on."""

    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then

    async def review(self, turn: Turn, call: ToolCall) -> Approve:
        self.then()
        return Approve()


def _elsewhere(world: World, path: Path) -> None:
    path.unlink()
    path.symlink_to(world.out / "secret.txt")


def _other_name(world: World, path: Path) -> None:
    path.unlink()
    os.link(world.out / "secret.txt", path)


def _folder_elsewhere(world: World, path: Path) -> None:
    path.parent.rename(world.work / "aside")
    path.parent.symlink_to(world.out)


def _folder_to_git(world: World, path: Path) -> None:
    path.parent.rename(world.work / "aside")
    path.parent.symlink_to(".git")
    (world.work / ".git" / path.name).symlink_to("config")


def _to_settings(world: World, path: Path) -> None:
    path.unlink()
    path.symlink_to(world.work / "continualcode.toml")


def _pipe(world: World, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(world: World, path: Path) -> None:
    path.unlink()
    path.mkdir()


def _changed(world: World, path: Path) -> None:
    path.write_text("a person's work\n")


def _gone(world: World, path: Path) -> None:
    shutil.rmtree(path.parent)


SWAPS: dict[str, Swap] = {
    "a link to a file outside": _elsewhere,
    "another name of a file outside": _other_name,
    "its folder for a link outside": _folder_elsewhere,
    "its folder for one to .git": _folder_to_git,
    "a link to the settings": _to_settings,
    "a pipe": _pipe,
    "a folder": _folder,
    "other content": _changed,
    "nothing": _gone,
}


async def all_swaps(world: World) -> list[Outcome]:
    """Every swap before every tool that writes, and a folder that is swapped without end while they write."""
    outcomes = [await _swapped(world, name, swap, tool) for name, swap in SWAPS.items() for tool in WRITING]
    return [*outcomes, *[await _racing(world, tool) for tool in (*WRITING, "read")]]


async def _swapped(world: World, name: str, swap: Swap, tool: str) -> Outcome:
    workspace = world.reset()
    path = world.work / "sub" / "a.py"
    workspace.note_seen("sub/a.py", path.read_bytes())
    call = file_call(tool, "sub/a.py")
    call = ToolCall(tool, {**call.arguments, "old": "x = 1"}) if tool == "edit" else call
    began = time.monotonic()
    result = await run(call, standard_tools(workspace), [ApproveThen(lambda: swap(world, path))])
    achieved = world.damage(call, result.output if result is not None else "")
    if name == "other content" and path.read_text() != "a person's work\n":
        achieved.append("lost a person's work")
    if time.monotonic() - began > HANG:
        achieved.append("hung")
    return Outcome(f"swapped for {name}", call, tuple(achieved), time.monotonic() - began, result is not None)


async def _racing(world: World, tool: str) -> Outcome:
    workspace = world.reset()
    registry = ToolRegistry(standard_tools(workspace), redact=str)
    read = ""
    began = time.monotonic()
    with _exchanging(world.work / "sub", world.work / "link-out"):
        for number in range(200):
            for name in ("a.py", "secret.txt", f"new/{number}"):
                result = await registry.call(file_call(tool, f"sub/{name}"))
                read += result.output if tool == "read" and result.ok else ""
    achieved = world.damage(file_call(tool, "sub/secret.txt"), read)
    return Outcome("swapped without end", file_call(tool, "sub/..."), tuple(achieved), time.monotonic() - began, True)


@contextmanager
def _exchanging(one: Path, other: Path) -> Iterator[None]:
    stop, exchange = threading.Event(), ctypes.CDLL(None).renameat2

    def swap() -> None:
        while not stop.is_set():
            exchange(-100, bytes(one), -100, bytes(other), 2)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if one.is_symlink():
            exchange(-100, bytes(one), -100, bytes(other), 2)


if __name__ == "__main__":
    with World() as here:
        for each in asyncio.run(all_swaps(here)):
            print(each.kind, each.call.name, each.achieved, each.ran)
