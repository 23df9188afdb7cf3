"""`continualcode doctor`: what this machine has, what is missing and how to get it, and whether the backend works.

Knows nothing of how a backend is probed; that is `continualcode.backends.diagnose`.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from continualcode import __version__
from continualcode.config import EMBEDDED_MODEL, FILE, Config, user_file
from continualcode.errors import BackendError, ConfigError, MissingExtraError
from continualcode.hookspecs import Connection, Progress
from continualcode.plugins import load_plugins, selected
from continualcode.protocols import Backend
from continualcode.tools import find_ripgrep, find_sandbox

EXTRAS = {"local": "the embedded engine", "ripgrep": "a fast grep"}
"""The optional parts and what they are for."""

_REQUIREMENT = re.compile(r"""([\w.-]+)[^;]*(?:;.*extra == ['"]([\w-]+)['"])?""")
_COLOURS = {"ok": "green", "limited": "yellow", "failed": "red"}


@dataclass(frozen=True, slots=True)
class Row:
    """One thing looked at. `limited`: it works without; `seconds` is None where nothing was timed."""

    check: str
    outcome: Literal["ok", "limited", "failed"]
    detail: str
    seconds: float | None = None


def machine(config: Config) -> list[Row]:
    """What is installed and found here. Loads none of it but torch, if it is there, to ask for its device."""
    return [
        Row("continualcode", "ok", f"{__version__} in {Path(__file__).parent}"),
        Row("python", "ok", f"{platform.python_version()} on {platform.platform()}"),
        *_requirements(),
        *(_extra(name, purpose) for name, purpose in EXTRAS.items()),
        _device(),
        _embedded_model(),
        _program("ripgrep", find_ripgrep(), "grep and glob are slower: pip install 'continualcode[ripgrep]'"),
        _program("bash", shutil.which("bash"), "the tool bash cannot run commands; install bash"),
        _sandbox(config),
        _writable("state_dir", config.state_dir),
        _settings("your settings", user_file()),
        _settings("workspace settings", config.workspace / FILE),
        Row(
            "TINKER_API_KEY",
            "ok",
            "set" if os.environ.get("TINKER_API_KEY") else "not set; only hosted Tinker needs it",
        ),
    ]


async def ask_backend(config: Config, progress: Progress) -> list[Row]:
    """Connects as the agent would, and tries everything it will need. One row has failed when it cannot work."""
    began = time.perf_counter()
    try:
        connect = selected(load_plugins(), "register_backends", config.backend)
        connection: Connection = await connect(config, progress)
    except (BackendError, ConfigError, MissingExtraError) as error:
        return [Row("connect", "failed", str(error), time.perf_counter() - began)]
    connected = Row("connect", "ok", "; ".join(connection.notes) or config.backend, time.perf_counter() - began)
    try:
        progress("trying everything the agent needs")
        return [connected, *await _tried(connection.backend)]
    finally:
        await connection.close()


def show(title: str, rows: Sequence[Row]) -> None:
    """Prints the rows as a table on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for heading in ("check", "", "found", "seconds"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left", overflow="fold")
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.2f}"
        table.add_row(Text(row.check), Text(row.outcome, _COLOURS[row.outcome]), Text(row.detail), seconds)
    console = Console()
    console.print(table)
    console.print()


async def _tried(backend: Backend) -> list[Row]:
    from continualcode.backends import TinkerBackend, diagnose

    if isinstance(backend, TinkerBackend):
        report = await diagnose(backend)
        return [Row(found.check, found.outcome, found.detail, found.seconds) for found in report.findings]
    able = backend.capabilities
    topk = able.distillation_topk
    return [
        Row("top-K distillation", "ok" if topk else "limited", f"up to K = {topk}" if topk else "no"),
        *(Row("note", "limited", note) for note in able.notes),
    ]


def _packages(extra: str | None) -> list[str]:
    """The distributions that continualcode itself, or one of its extras, requires."""
    found = [_REQUIREMENT.match(line) for line in requires("continualcode") or ()]
    return [match[1] for match in found if match and match[2] == extra]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _requirements() -> list[Row]:
    found = {name: _version(name) for name in _packages(None)}
    missing = [Row(name, "failed", f"not installed: pip install {name}") for name, has in found.items() if has is None]
    return [*missing, Row("packages", "ok", ", ".join(f"{name} {has}" for name, has in found.items() if has))]


def _extra(name: str, purpose: str) -> Row:
    wanted = _packages(name)
    missing = [package for package in wanted if _version(package) is None]
    if missing:
        said = f"{purpose}; missing {', '.join(missing)}: pip install 'continualcode[{name}]'"
        return Row(f"extra {name}", "limited", said)
    return Row(f"extra {name}", "ok", ", ".join(f"{package} {_version(package)}" for package in wanted))


def _device() -> Row:
    if _version("torch") is None:
        return Row("device", "limited", "no torch, so no embedded engine")
    from continualcode.local import loading

    device = loading.choose_device()
    dtype = str(loading.choose_dtype("auto", device)).removeprefix("torch.")
    return Row("device", "ok", f"{device}, {dtype}, {os.cpu_count()} CPU cores")


def _embedded_model() -> Row:
    from continualcode.local import pretrained

    folders = sorted((pretrained.cache_folder() / "models").glob(f"{EMBEDDED_MODEL}-*"))
    if not folders:
        return Row(
            "embedded model", "limited", f"not fetched yet (93 MB, at first use, into {pretrained.cache_folder()})"
        )
    adapter = "with" if pretrained.cold_start(EMBEDDED_MODEL) else "without"
    return Row("embedded model", "ok", f"{folders[-1]}, {adapter} the adapter for tool calls")


def _program(name: str, path: str | None, otherwise: str) -> Row:
    return Row(name, "ok", path) if path else Row(name, "limited", f"not found: {otherwise}")


def _sandbox(config: Config) -> Row:
    try:
        found = find_sandbox(config.sandbox, network=config.bash_network)
    except ConfigError as error:
        return Row("sandbox", "failed", str(error))
    return Row("sandbox", "ok" if found.kind == "bubblewrap" else "limited", found.note)


def _writable(name: str, folder: Path) -> Row:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Row(name, "ok", f"{folder}, {shutil.disk_usage(folder).free / 1e9:.0f} GB free")
    except OSError as error:
        return Row(name, "failed", f"{folder} cannot be written ({error.strerror}); choose another with state_dir=...")


def _settings(name: str, path: Path) -> Row:
    return Row(name, "ok", f"{path} {'is read' if path.is_file() else 'does not exist'}")
