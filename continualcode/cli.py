"""The command `continualcode`: words in, an exit status out. What takes long to import waits until it is needed."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from continualcode import __version__
from continualcode.config import FILE, PREFIX, Config, read_arguments, user_file
from continualcode.errors import BackendError, ConfigError, ContinualCodeError

if TYPE_CHECKING:
    from continualcode.assembly import Assembly
    from continualcode.hookspecs import Progress
    from continualcode.journal import Journal

USAGE = """\
usage: continualcode [key=value ...]            start the agent
       continualcode doctor [key=value ...]     check this machine and the backend
       continualcode plugins [key=value ...]    list what is installed
       continualcode benchmark NAME [ARG ...]   run a benchmark
       continualcode --help | --version

A coding agent that learns from your corrections: deny a call, say why, and the model trains on it."""

FAILED, WRONG, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 when it went well, 1 when doctor found a fault, 2 for an error, 130 when interrupted."""
    _be_quiet()
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except ContinualCodeError as error:
        print(f"continualcode: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        return INTERRUPTED


def help_text() -> str:
    """Usage, and every setting with its default and meaning."""
    width = max(60, min(110, shutil.get_terminal_size().columns))
    rows = [
        (
            f"{name}={'' if field.is_required() else _shown(field.get_default(call_default_factory=True))}",
            field.description,
        )
        for name, field in Config.model_fields.items()
    ]
    column = min(34, max(len(left) for left, _ in rows)) + 2
    lines = [line for left, right in rows for line in _row(left, right or "", column, width)]
    sources = (
        f"Later wins: defaults, {user_file()}, {FILE} in the workspace, {PREFIX}KEY in the environment, key=value."
    )
    return "\n".join([USAGE, "", "settings and their defaults:", *lines, "", textwrap.fill(sources, width)])


def _run(words: list[str]) -> int:
    if {"--help", "-h"} & set(words) or words == ["help"]:
        print(help_text())
        return 0
    match words:
        case ["--version" | "-V"]:
            print(f"continualcode {__version__}")
            return 0
        case ["plugins", *settings]:
            return _list_plugins(Config(**read_arguments(settings)))
        case ["doctor", *settings]:
            return asyncio.run(_examine(Config(**read_arguments(settings))))
        case ["benchmark", name, *rest]:
            from continualcode.plugins import load_plugins, selected

            status: int = selected(load_plugins(), "register_benchmarks", name)(rest)
            return status
        case _:
            return asyncio.run(_converse(Config(**read_arguments(words))))


async def _examine(config: Config) -> int:
    from continualcode import doctor

    with waiting("looking around"):
        found = doctor.machine(config)
    doctor.show("this machine", found)
    with waiting(f"asking backend {config.backend}") as progress:
        asked = await doctor.ask_backend(config, progress)
    doctor.show(f"backend {config.backend}", asked)
    return FAILED if any(row.outcome == "failed" for row in (*found, *asked)) else 0


async def _converse(config: Config) -> int:
    if config.frontend == "terminal" and not sys.stdin.isatty():
        from continualcode.frontends.terminal.wording import NOT_A_TERMINAL

        raise ConfigError(NOT_A_TERMINAL)
    from continualcode.journal import Journal, session_path
    from continualcode.plugins import load_plugins

    journal = Journal(session_path(config.state_dir))
    plugins = load_plugins(journal)
    with waiting("starting") as progress:
        from continualcode.assembly import build

        assembly = await build(config, plugins, with_frontend=True, progress=progress)
    assert assembly.frontend is not None
    try:
        await assembly.frontend.run(assembly.agent)
    finally:
        await _leave(assembly, journal)
    return 0


async def _leave(assembly: Assembly, journal: Journal) -> None:
    """Saves what was learned and says where it is."""
    try:
        with waiting("saving what was learned"):
            path = await assembly.close()
    except BackendError as error:
        print(f"what was learned since the last save is lost: {error}", file=sys.stderr)
        path = assembly.saver.paths[-1] if assembly.saver and assembly.saver.paths else None
    if path is not None:
        print(f"What was learned is kept. To go on from it: continualcode load_checkpoint_path={path}", file=sys.stderr)
    if journal.path.exists():
        print(f"The session is recorded in {journal.path}", file=sys.stderr)


@contextmanager
def waiting(what: str) -> Iterator[Progress]:
    """A spinner on stderr that says what is waited for; where stderr is no terminal, a line for each new thing."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(what)) as status:
        yield lambda doing: status.update(Text(doing))


class _Lines:
    """Prints what is new; a figure that goes up is not."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, doing: str) -> None:
        told = re.sub(r"\d+", "#", doing)
        if told != self._last:
            print(f"{doing} ...", file=sys.stderr, flush=True)
        self._last = told


def _list_plugins(config: Config) -> int:
    from continualcode.plugins import inventory, load_plugins

    for plugin, added in inventory(load_plugins(), config).items():
        print(plugin)
        for kind, names in added.items():
            print(textwrap.fill(", ".join(names), 100, initial_indent=f"  {kind:12}", subsequent_indent=" " * 14))
    return 0


def _be_quiet() -> None:
    """What libraries would print between the lines of a conversation. Only here: a library leaves that to its user.
    What the Tinker client logs of a failure comes as an error as well."""
    for name, value in {
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }.items():
        os.environ.setdefault(name, value)
    if "TINKER_LOG" not in os.environ:
        logging.getLogger("tinker").setLevel(logging.CRITICAL)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def _row(left: str, right: str, column: int, width: int) -> list[str]:
    wrapped = textwrap.wrap(right, width - column - 2)
    first = [] if len(left) < column else [f"  {left}"]
    if not first:
        first, wrapped = [f"  {left:{column}}{wrapped[0]}"], wrapped[1:]
    return [*first, *(" " * (column + 2) + line for line in wrapped)]


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
