"""Every error continualcode raises on purpose; knows nothing of what raises them.

ContinualCodeError
├── ConfigError          a setting, a command-line key or a constructor argument is wrong
├── PluginError          a plug-in is broken, or two own one name
├── MissingExtraError    an optional dependency is not installed; names the extra
├── BackendError         the model could not do what was asked
│   ├── BackendUnavailableError   nobody answers (dead server, no network); the conversation is intact
│   ├── CapabilityError           this backend cannot do this at all; names what can
│   ├── ContextLengthError        prompt and completion do not fit the model's context
│   └── AlignmentError            tokens and logprobs do not line up; nothing was trained on
└── ToolError            said to the model, not to the user: the tool could not do what was asked
    └── WorkspaceError   the path leaves the workspace, or may not be written
"""


class ContinualCodeError(Exception):
    """Base of every error raised on purpose. The message says what was wrong, what was found and what to do."""


class ConfigError(ContinualCodeError):
    """A setting, a command-line key or a constructor argument is wrong."""


class PluginError(ContinualCodeError):
    """A plug-in is broken, or two plug-ins own one name."""


class MissingExtraError(ContinualCodeError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'continualcode[{extra}]'")
        self.extra = extra


class BackendError(ContinualCodeError):
    """The model could not do what was asked."""


class BackendUnavailableError(BackendError):
    """Nobody answers. Conversation, files and saved weights are intact."""


class CapabilityError(BackendError):
    """This backend cannot do this at all."""


class ContextLengthError(BackendError):
    """The prompt and the completion asked for do not fit the model's context."""


class AlignmentError(BackendError):
    """Tokens and logprobs do not line up one to one. Nothing was trained on."""


class ToolError(ContinualCodeError):
    """A tool could not do what was asked. The message is the model's to read and act on."""


class WorkspaceError(ToolError):
    """A path leaves the workspace, or may not be touched."""
