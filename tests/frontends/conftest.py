import asyncio
import importlib.util
import io
import re
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output
from rich.console import Console

from continualcode.approval import Remember
from continualcode.frontends.terminal import Terminal
from continualcode.tools import Workspace

DOUBLES = Path(__file__).with_name("doubles.py")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(scope="session")
def doubles():
    spec = importlib.util.spec_from_file_location("frontend_doubles", DOUBLES)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def workspace(tmp_path):
    """Holds calc.py, which the model has read."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "calc.py").write_text("def add(a, b):\n    return a - b\n")
    made = Workspace(folder)
    made.note_seen("calc.py", made.read("calc.py"))
    return made


class Seat:
    """A person at a terminal of 60 columns: types, and waits for what is shown."""

    def __init__(self, pipe, terminal, agent, printed, prompted):
        self.pipe, self.terminal, self.agent, self._printed, self._prompted = pipe, terminal, agent, printed, prompted
        self.running = asyncio.create_task(terminal.run(agent))

    @property
    def shown(self):
        """What has been printed; questions not included."""
        return self._printed.getvalue()

    @property
    def asked(self):
        return _ESCAPES.sub("", self._prompted.getvalue())

    def type(self, keys):
        self._prompted.seek(0)
        self._prompted.truncate()
        self.pipe.send_text(keys)

    async def until(self, text, where="shown"):
        deadline = time.monotonic() + 10
        while text not in getattr(self, where):
            if self.running.done():
                self.running.result()
            assert time.monotonic() < deadline, f"{text!r} did not appear in:\n{self.shown}\n{self.asked}"
            await asyncio.sleep(0.01)

    async def question(self, text="why not:"):
        """Waits for a question that has come since the last keys, and until it takes keys."""
        await self.until(text, "asked")
        await asyncio.sleep(0.25)

    async def answer(self, keys, question="why not:"):
        await self.question(question)
        self.type(keys)


@pytest.fixture
def sit(doubles, workspace, tmp_path):
    """`async with sit(steps) as seat`: a terminal that runs; left with Ctrl-D at the end."""

    @asynccontextmanager
    async def open_seat(steps, *, learner=None, seconds=0.0, gates=(), prompt="fix it", **arguments):
        printed, prompted, remember = io.StringIO(), io.StringIO(), Remember()
        console = Console(file=printed, width=60, highlight=False)
        output = Vt100_Output(prompted, lambda: Size(rows=40, columns=60), enable_cpr=False)
        with create_pipe_input() as pipe:
            terminal = Terminal(
                workspace=workspace,
                remember=remember,
                history=tmp_path / "history",
                prompt=prompt,
                console=console,
                input=pipe,
                output=output,
                **arguments,
            )
            agent = doubles.agent_of(steps, workspace, terminal, remember, *gates, learner=learner, seconds=seconds)
            seat = Seat(pipe, terminal, agent, printed, prompted)
            try:
                yield seat
                await seat.until("> ", "asked")
                pipe.send_text("\x04")
                await asyncio.wait_for(seat.running, 10)
            finally:
                seat.running.cancel()

    return open_seat
