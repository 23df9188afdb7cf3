"""An example plug-in: a tool that outlines Python files, and a gate that keeps secrets shut.

`pip install ./examples/plugin`, and `continualcode plugins` lists it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import PurePath

from continualcode import ApprovalGate, Config, Deny, Tool, ToolCall, ToolError, Turn, hookimpl, tool
from continualcode.tools import Workspace

SECRETS = ("*.pem", "*.key", ".env", ".env.*", "id_rsa*", "id_ed25519*")
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class NoSecrets:
    """Denies, and teaches to avoid, file tools on files named like secrets; asked before anything is approved.

    It looks at the argument `path` alone. What a shell command reads is for a person to judge.
    """

    async def review(self, turn: Turn, call: ToolCall) -> Deny | None:
        name = PurePath(str(call.arguments.get("path", ""))).name
        if any(fnmatch(name, pattern) for pattern in SECRETS):
            return Deny(f"{name} holds secrets; leave it alone and ask for what you need")
        return None


@hookimpl
def register_gates(config: Config) -> list[ApprovalGate]:
    return [NoSecrets()]


@hookimpl
def register_tools(workspace: Workspace) -> list[Tool]:
    @tool
    def outline(path: str) -> str:
        """List the classes and functions of a Python file, each with its line number."""
        try:
            tree = ast.parse(workspace.read(path))
        except (SyntaxError, ValueError) as error:
            raise ToolError(f"{path} is no Python that parses: {error}") from error
        return "\n".join(_outlined(tree.body)) or f"{path} defines no class and no function"

    return [outline]


def _outlined(body: list[ast.stmt], depth: int = 0) -> Iterator[str]:
    for node in body:
        if isinstance(node, _DEFINITIONS):
            kind = "class" if isinstance(node, ast.ClassDef) else "def"
            yield f"{node.lineno:5} {'  ' * depth}{kind} {node.name}"
            yield from _outlined(node.body, depth + 1)
