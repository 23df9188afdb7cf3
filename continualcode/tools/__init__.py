"""What the model can do: the standard tools, the workspace they are confined to, and how to make more."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from continualcode.protocols import Tool
from continualcode.tools.files import file_tools, preview
from continualcode.tools.registry import FunctionTool, ToolRegistry, tool
from continualcode.tools.sandbox import Sandbox, find_sandbox
from continualcode.tools.search import find_ripgrep, search_tools
from continualcode.tools.shell import bash_tool
from continualcode.tools.workspace import Workspace

READ_ONLY = frozenset({"read", "glob", "grep"})
"""Names of the standard tools that change nothing."""

__all__ = [
    "READ_ONLY",
    "FunctionTool",
    "Sandbox",
    "ToolRegistry",
    "Workspace",
    "bash_tool",
    "file_tools",
    "find_ripgrep",
    "find_sandbox",
    "preview",
    "search_tools",
    "standard_tools",
    "tool",
]


def standard_tools(
    workspace: Workspace,
    *,
    bash_timeout: float = 120.0,
    sandbox: Sandbox | None = None,
    bash_env: Collection[str] = (),
) -> list[Tool]:
    """read, write, edit, edit_lines, glob, grep and bash in one workspace; bash as `bash_tool` makes it."""
    return [
        *file_tools(workspace),
        *search_tools(workspace, ripgrep=_trusted(find_ripgrep(), workspace)),
        bash_tool(workspace, timeout=bash_timeout, sandbox=sandbox, pass_on=bash_env),
    ]


def _trusted(program: str | None, workspace: Workspace) -> str | None:
    """The program, unless it lies where the model may write one of its own in its place."""
    real = Path(program).resolve() if program is not None else None
    return None if real is None or (real.is_relative_to(workspace.root) and not workspace.own.holds(real)) else program
