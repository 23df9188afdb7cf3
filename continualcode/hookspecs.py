"""What a plug-in can add: the hooks, and the values they hand over. Knows nothing of how plug-ins are found.

    from continualcode import hookimpl

    @hookimpl
    def register_gates(config):
        return [NoSecrets()]

A hook may take fewer arguments than it is offered. Every hook but `observe` returns something and is asked once, when an
agent is assembled. Returning None is the same as adding nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pluggy

if TYPE_CHECKING:
    from continualcode.approval import Remember
    from continualcode.config import Config
    from continualcode.events import Event
    from continualcode.protocols import ApprovalGate, Backend, Frontend, Renderer, Teacher, Tool
    from continualcode.tools import Workspace
    from continualcode.types import Message

PROJECT = "continualcode"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Progress: TypeAlias = Callable[[str], None]
"""Told, in a few words, what a wait is for; may be called from another thread."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A model that answers, and how to leave it."""

    backend: Backend
    tokenizer: Any
    """What the renderer's factory is given."""
    close: Callable[[], Awaitable[None]]
    discard: Callable[[str], None] | None = None
    """Removes a checkpoint that `backend.save` made here; None where checkpoints are the service's to remove."""
    notes: tuple[str, ...] = ()
    ordinary: tuple[tuple[str, Message], ...] = ()
    """Requests and the replies this model is known to give to them, for corrections to leave alone; see SDPOTrainer."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a frontend may want to know of the agent it will drive."""

    config: Config
    workspace: Workspace
    remember: Remember
    """The gate that holds "always allow"; it is asked before the frontend."""
    renderer: Renderer
    greeting: tuple[str, ...]
    """What a person should know first: the model, and every announced approximation, a line each."""
    save: Callable[[], Awaitable[str | None]]
    """Saves what was learned and is not saved yet; the path that `load_checkpoint_path` takes, or None when nothing
    was learned. To be called at the end; may be called twice."""


FrontendFactory: TypeAlias = "Callable[[Surroundings], Frontend]"
BackendFactory: TypeAlias = "Callable[[Config, Progress], Awaitable[Connection]]"
TeacherFactory: TypeAlias = "Callable[[Backend, float], Teacher]"
RendererFactory: TypeAlias = "Callable[[Any, str], Renderer]"
Benchmark: TypeAlias = "Callable[[Sequence[str]], int]"


@hookspec
def register_tools(config: Config, workspace: Workspace) -> Sequence[Tool | Callable[..., object]] | None:
    """Tools the model may call, as `Tool`s or plain typed functions with a docstring.

    File access belongs to `workspace`, which confines paths. A call of a plug-in's tool is
    asked about like any other; no tool is approved for being registered.
    """


@hookspec
def register_gates(config: Config) -> Sequence[ApprovalGate] | None:
    """Gates, asked in this order: those passed to `assemble`, those of plug-ins (last registered first), the built-in
    ones (Rules, ReadOnly, TestRunner, CommandGate), Remember, the frontend.

    So a plug-in's gate can refuse what ReadOnly or an "always allow" would let through. One that is a Critic too is
    asked as both.
    """


@hookspec
def register_frontends() -> Mapping[str, FrontendFactory] | None:
    """Frontends by the name that `frontend=` selects: `(surroundings: Surroundings) -> Frontend`.

    Import what is heavy inside the factory.
    """


@hookspec
def register_backends() -> Mapping[str, BackendFactory] | None:
    """Backends by the name that `backend=` selects: `async (config: Config, progress: Progress) -> Connection`.

    Import what is heavy inside the factory. Raise BackendUnavailableError when nobody answers, ConfigError for a
    setting that cannot work here.
    """


@hookspec
def register_teachers() -> Mapping[str, TeacherFactory] | None:
    """Teachers by the name that `teacher_regularization=` selects: `(backend: Backend, teacher_update_rate: float) -> Teacher`.

    The rate lies in [0, 1].
    """


@hookspec
def register_renderers() -> Mapping[str, RendererFactory] | None:
    """Renderers by the name that `renderer=` selects: `(tokenizer, model_name: str) -> Renderer`.

    `tokenizer` is that of the backend's Connection.
    """


@hookspec
def register_benchmarks() -> Mapping[str, Benchmark] | None:
    """Benchmarks by the name that `continualcode benchmark NAME ...` runs: `(arguments: Sequence[str]) -> int`, the
    exit status."""


@hookspec
def observe(event: Event) -> None:
    """Called with every event of a run before it is shown, and what undo and redo did between runs, in the event
    loop: return at once. What it raises ends the run with a PluginError."""
