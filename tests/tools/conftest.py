from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from continualcode.tools import ToolRegistry, Workspace, standard_tools
from continualcode.types import Json, ToolCall, ToolResult

Use = Callable[..., Awaitable[ToolResult]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace's root, with room outside of it."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def workspace(root: Path) -> Workspace:
    return Workspace(root)


@pytest.fixture
def use(workspace: Workspace) -> Use:
    """Calls a standard tool by name, as an agent does."""
    registry = ToolRegistry(standard_tools(workspace, bash_timeout=20.0))

    async def call(name: str, **arguments: Json) -> ToolResult:
        return await registry.call(ToolCall(name, arguments))

    return call


@pytest.fixture
def change(use: Use) -> Use:
    """Calls a tool that changes a file, after reading that file."""

    async def call(name: str, *, path: str, **arguments: Json) -> ToolResult:
        assert (await use("read", path=path)).ok
        return await use(name, path=path, **arguments)

    return call
