"""A coding agent that learns from your corrections. Names load on first use; importing this costs next to nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from continualcode.agent import Agent
    from continualcode.assembly import assemble
    from continualcode.config import Config
    from continualcode.errors import (
        AlignmentError,
        BackendError,
        BackendUnavailableError,
        CapabilityError,
        ConfigError,
        ContextLengthError,
        ContinualCodeError,
        MissingExtraError,
        PluginError,
        ToolError,
        WorkspaceError,
    )
    from continualcode.events import Event
    from continualcode.hookspecs import hookimpl
    from continualcode.policy import Policy
    from continualcode.protocols import (
        ApprovalGate,
        Backend,
        Critic,
        Frontend,
        Learner,
        Renderer,
        Sampler,
        Teacher,
        Tool,
    )
    from continualcode.sdpo import SDPOConfig, SDPOTrainer
    from continualcode.tools import ToolRegistry, tool
    from continualcode.types import (
        Approve,
        Completion,
        Conversation,
        Deny,
        Edit,
        Lesson,
        Message,
        Sampling,
        ToolCall,
        ToolResult,
        ToolSpec,
        TrainReport,
        Turn,
    )

__version__ = "0.7.0"

__all__ = [
    "Agent",
    "AlignmentError",
    "ApprovalGate",
    "Approve",
    "Backend",
    "BackendError",
    "BackendUnavailableError",
    "CapabilityError",
    "Completion",
    "Config",
    "ConfigError",
    "ContextLengthError",
    "ContinualCodeError",
    "Conversation",
    "Critic",
    "Deny",
    "Edit",
    "Event",
    "Frontend",
    "Learner",
    "Lesson",
    "Message",
    "MissingExtraError",
    "PluginError",
    "Policy",
    "Renderer",
    "SDPOConfig",
    "SDPOTrainer",
    "Sampler",
    "Sampling",
    "Teacher",
    "Tool",
    "ToolCall",
    "ToolError",
    "ToolRegistry",
    "ToolResult",
    "ToolSpec",
    "TrainReport",
    "Turn",
    "WorkspaceError",
    "__version__",
    "assemble",
    "hookimpl",
    "tool",
]

_HOME = {
    "continualcode.agent": ("Agent",),
    "continualcode.assembly": ("assemble",),
    "continualcode.config": ("Config",),
    "continualcode.errors": (
        "AlignmentError",
        "BackendError",
        "BackendUnavailableError",
        "CapabilityError",
        "ConfigError",
        "ContextLengthError",
        "ContinualCodeError",
        "MissingExtraError",
        "PluginError",
        "ToolError",
        "WorkspaceError",
    ),
    "continualcode.events": ("Event",),
    "continualcode.hookspecs": ("hookimpl",),
    "continualcode.policy": ("Policy",),
    "continualcode.protocols": (
        "ApprovalGate",
        "Backend",
        "Critic",
        "Frontend",
        "Learner",
        "Renderer",
        "Sampler",
        "Teacher",
        "Tool",
    ),
    "continualcode.sdpo": ("SDPOConfig", "SDPOTrainer"),
    "continualcode.tools": ("ToolRegistry", "tool"),
    "continualcode.types": (
        "Approve",
        "Completion",
        "Conversation",
        "Deny",
        "Edit",
        "Lesson",
        "Message",
        "Sampling",
        "ToolCall",
        "ToolResult",
        "ToolSpec",
        "TrainReport",
        "Turn",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'continualcode' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
