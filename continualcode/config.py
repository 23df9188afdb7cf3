"""Every setting, where it may come from and what it must be. Knows nothing of what is built from it.

Sources, the later wins: defaults, ~/.config/continualcode/continualcode.toml, continualcode.toml in the workspace,
CONTINUALCODE_* in the environment, `key=value` on the command line or `Config(key=value)`.

A workspace's file comes with the repository, from whoever wrote that. It may tune learning and sampling
(`WORKSPACE_KEYS`), never decide what is loaded, who is connected to or what runs without asking.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from continualcode.approval.rules import Rule
from continualcode.errors import ConfigError

FILE = "continualcode.toml"
PREFIX = "CONTINUALCODE_"
EMBEDDED_MODEL = "smollm2-135m"
HOSTED_MODEL = "Qwen/Qwen3-4B-Instruct-2507"
NOT_SETTINGS = frozenset({"cache"})
"""CONTINUALCODE_CACHE is the embedded engine's own."""

WORKSPACE_KEYS = frozenset(
    {
        "lora_rank",
        "learning_rate",
        "save_every",
        "temperature",
        "top_p",
        "max_tokens",
        "seed",
        "alpha",
        "distillation_topk",
        "distillation_add_tail",
        "is_clip",
        "teacher_regularization",
        "teacher_update_rate",
        "max_inner_steps",
        "max_denial_steps",
        "constant_instructions",
        "null_space",
        "drift_budget",
        "rehearse",
        "min_gap",
        "enable_training",
    }
)
"""What the file in a workspace may set."""


class Config(BaseSettings):
    """All settings, checked together. Values given here win over environment and files.

    Raises ConfigError naming the key, where its value came from, what was found and what is allowed.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, protected_namespaces=())

    backend: str = Field(
        "auto", description="tinker, local or a plug-in's; auto: tinker with a key or base_url, else local"
    )
    model_name: str = Field("", description=f"default: {EMBEDDED_MODEL} (local), {HOSTED_MODEL} (tinker)")
    base_url: str | None = Field(None, description="address of a self-hosted Tinker-compatible server")
    load_checkpoint_path: str | None = Field(None, description="go on from these saved weights")
    workspace: Path = Field(Path("."), description="the folder that file tools are confined to")
    frontend: str = Field("terminal", description="terminal, headless (JSON lines) or a plug-in's")
    prompt: str | None = Field(None, description="the first request")
    renderer: str = Field("auto", description="chat format: auto (from the model's template), or a family's name")
    sandbox: Literal["auto", "required", "off"] = Field(
        "auto", description="of bash: the best there is here, announced; required: refuse to start without; off"
    )
    bash_network: bool = Field(False, description="let bash use the network")
    bash_env: str = Field("", description="variables that bash gets though they look like secrets: NAME,NAME")
    auto_approve_readonly: bool = Field(False, description="run read, glob and grep without asking")
    rules: tuple[Rule, ...] = Field((), description="allow, ask or deny by tool, path or command: docs/gates.md")
    test_command: str | None = Field(
        None,
        description="run on a copy before each change, which is denied if a test breaks, and after calls that could not be "
        "tried: pytest -q",
    )
    lint_command: str | None = Field(None, description="likewise; new complaints are denied: ruff check {paths}")
    enable_training: bool = Field(True, description="learn from corrections; false: only denies")
    lora_rank: int = Field(
        32, ge=1, description="rank of the trained LoRA; a power of 2 on Tinker (16 on the embedded model)"
    )
    learning_rate: float = Field(1e-4, gt=0, description="of one correction's step (1e-3 on the embedded model)")
    save_every: int = Field(10, ge=0, description="save after so many steps, and at the end; 0: only then (1 on local)")
    temperature: float = Field(1.0, ge=0, description="of sampling; training needs 1")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus of sampling; training needs 1")
    max_tokens: int = Field(1024, ge=1, description="longest reply (400 on the embedded model)")
    seed: int | None = Field(None, description="of the LoRA's initial weights and of sampling")
    alpha: float = Field(0.0, ge=0, le=1, description="0 forward KL, 1 reverse KL, between: Jensen-Shannon")
    distillation_topk: Literal["all"] | Annotated[int, Field(ge=1)] | None = Field(
        20, description="candidates per token; all: the vocabulary (local); None: the sampled token alone"
    )
    distillation_add_tail: bool = Field(True, description="one bucket for the rest of the vocabulary")
    is_clip: float | None = Field(2.0, gt=0, description="bound of the importance ratio; None: no weighting")
    teacher_regularization: str = Field(
        "none", description="none (newest weights), frozen, ema, trust-region or a plug-in's"
    )
    teacher_update_rate: float = Field(0.05, ge=0, le=1, description="of ema and trust-region: 0 frozen, 1 newest")
    max_inner_steps: int = Field(
        1, ge=1, description="optimiser steps on one correction, at most (12 on the embedded model)"
    )
    max_denial_steps: int | None = Field(
        None, ge=1, description="the same while it is not known what would have been right (1 on the embedded model)"
    )
    constant_instructions: bool = Field(
        False, description="no gradient through system message and tools: less time (True on the embedded model)"
    )
    null_space: bool = Field(
        False,
        description="train clear of what ordinary turns use (True on the embedded model, nowhere else; without it "
        "4 rehearsed, 8 steps of 3e-4)",
    )
    drift_budget: float = Field(
        0.05,
        ge=0,
        description="nats per token that rehearsed turns may move in one correction",
    )
    rehearse: int = Field(0, ge=0, description="corrections and approved turns from before mixed into each step")
    min_gap: float = Field(
        0.0,
        ge=0,
        description="nats between teacher and model below which nothing is trained (.3 on the embedded model)",
    )
    state_dir: Path = Field(default_factory=lambda: state_folder(), description="checkpoints and session journals")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError("\n".join(_faults(error, values))) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(cls), _WorkspaceFile(cls), _UserFile(cls)

    @field_validator("*", mode="before")
    @classmethod
    def _read_none(cls, value: Any, info: Any) -> Any:
        """The words None and null, where a setting may be None; elsewhere "none" is a name like any other."""
        optional = NoneType in get_args(cls.model_fields[info.field_name].annotation)
        return None if optional and isinstance(value, str) and value.lower() in ("none", "null") else value

    @model_validator(mode="after")
    def _complete(self) -> Config:
        if self.backend == "auto":
            self.model_fields_set.discard("backend")
        for key, value in self._derived().items():
            object.__setattr__(self, key, value)
        return self

    @model_validator(mode="after")
    def _agree(self) -> Config:
        for problem in _disagreements(self):
            raise ConfigError(problem)
        return self

    def chosen(self, key: str) -> bool:
        """Whether someone set this, rather than leaving it to us."""
        return key in self.model_fields_set

    def _derived(self) -> dict[str, Any]:
        """What was left to us: the backend by what there is to reach, the rest by the backend."""
        backend = self.backend if self.backend != "auto" else default_backend(self.base_url)
        wanted = {"workspace": self.workspace.expanduser().absolute(), "state_dir": self.state_dir.expanduser()}
        defaults = {
            **defaults_of(backend, self.model_name, null_space=self.null_space or not self.chosen("null_space")),
            "alpha": 1.0 if self.distillation_topk is None else 0.0,
        }
        wanted |= {key: value for key, value in defaults.items() if not self.chosen(key)}
        return {**wanted, "backend": backend}


def default_backend(base_url: str | None) -> str:
    """ "tinker" when there is an API key or an address for it, else the embedded engine."""
    return "tinker" if base_url or os.environ.get("TINKER_API_KEY") or os.environ.get("TINKER_BASE_URL") else "local"


def defaults_of(backend: str, model_name: str, *, null_space: bool = True) -> Mapping[str, Any]:
    """The defaults that depend on where the model runs and which it is, and there on whether it is to use null_space.

    Learning rates of one online correction with LoRA: 1e-4 for the models Tinker serves (its online user-feedback
    recipe, rank 32); for the embedded 135M model 3e-4, and 1e-3 in the null space, where B alone is trained
    (docs/corrections.md). Rank 16 is what that was measured with. A local save takes 0.2 s, a hosted one seconds.
    """
    if backend == "tinker":
        return {"model_name": model_name or HOSTED_MODEL}
    if backend != "local":
        return {}
    local = {"model_name": model_name or EMBEDDED_MODEL, "save_every": 1}
    small = {"lora_rank": 16, "max_tokens": 400, "max_denial_steps": 1, "min_gap": 0.3, "constant_instructions": True}
    if null_space:
        steps: dict[str, Any] = {"null_space": True, "learning_rate": 1e-3, "max_inner_steps": 12}
    else:
        steps = {"null_space": False, "learning_rate": 3e-4, "max_inner_steps": 8, "rehearse": 4}
    return local | small | steps if local["model_name"] == EMBEDDED_MODEL else local


def state_folder() -> Path:
    """$XDG_STATE_HOME/continualcode, by default ~/.local/state/continualcode."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "continualcode"


def user_file() -> Path:
    """The user's own settings, $XDG_CONFIG_HOME/continualcode/continualcode.toml; may set every key."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "continualcode" / FILE


def read_arguments(words: list[str]) -> dict[str, str]:
    """`key=value` words as settings. Raises ConfigError for a word that is none, or a key given twice."""
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"expected key=value, found {word!r}{_meant(word)}")
        if key in values:
            raise ConfigError(f"{key} is given twice: {values[key]!r} and {value!r}")
        values[key] = value
    return values


class _Source(PydanticBaseSettingsSource):
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError("these sources are read as a whole")


class _Environment(_Source):
    def __call__(self) -> dict[str, Any]:
        return _environment()


class _WorkspaceFile(_Source):
    def __call__(self) -> dict[str, Any]:
        above = self.current_state.get("workspace") or _read_toml(user_file()).get("workspace") or "."
        path = Path(str(above)).expanduser() / FILE
        found = {} if path.resolve() == user_file().resolve() else _read_toml(path)
        for key in found:
            if key in Config.model_fields and key not in WORKSPACE_KEYS:
                raise ConfigError(
                    f"{path}: {key} is not for a workspace's file to set, because that comes with the repository; "
                    f"set it in {user_file()}, as {PREFIX}{key.upper()} or {key}=... "
                    f"A workspace's file may set: {', '.join(sorted(WORKSPACE_KEYS))}"
                )
        return found


class _UserFile(_Source):
    def __call__(self) -> dict[str, Any]:
        return _read_toml(user_file())


def _environment() -> dict[str, Any]:
    names = {name[len(PREFIX) :].lower(): value for name, value in os.environ.items() if name.startswith(PREFIX)}
    return {key: value for key, value in names.items() if key not in NOT_SETTINGS}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _disagreements(config: Config) -> list[str]:
    """What cannot be true at once."""
    training = config.enable_training
    rate_without_teacher = config.chosen("teacher_update_rate") and config.teacher_regularization in ("none", "frozen")
    keyless = not (config.base_url or os.environ.get("TINKER_API_KEY") or os.environ.get("TINKER_BASE_URL"))
    problems = {
        f"temperature={config.temperature:g} with enable_training=true: training needs samples of the policy itself, "
        "and those are drawn at temperature 1. Leave temperature at 1, or set enable_training=false": (
            training and config.temperature != 1
        ),
        f"top_p={config.top_p:g} with enable_training=true: training needs samples of the whole policy, and those are "
        "drawn at top_p 1. Leave top_p at 1, or set enable_training=false": training and config.top_p != 1,
        f"distillation_topk=None with alpha={config.alpha:g}: the sampled token alone estimates the reverse KL. Set "
        "alpha=1, or distillation_topk to a number": config.distillation_topk is None and config.alpha != 1,
        f"teacher_update_rate={config.teacher_update_rate} has no meaning with teacher_regularization="
        f"{config.teacher_regularization}, whose weights are fixed by its name": rate_without_teacher,
        f"backend={config.backend} does not go with base_url={config.base_url}: that is the address of a Tinker "
        "server. Set backend=tinker, or leave base_url away": config.backend == "local" and config.base_url is not None,
        "backend=tinker needs TINKER_API_KEY in the environment (tml-...), or base_url=... of a server of your own; "
        "backend=local needs neither": config.backend == "tinker" and keyless,
        f"workspace={config.workspace} is no folder": not config.workspace.is_dir(),
    }
    return [problem for problem, found in problems.items() if found]


def _faults(error: ValidationError, given: Mapping[str, Any]) -> list[str]:
    faults = []
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            faults.append(f"unknown setting {key!r} ({_origin(key, given)}){_meant(key)}")
        else:
            faults.append(f"{key}={fault['input']} ({_origin(key, given)}) is not allowed: {_said(fault['msg'])}")
    return faults


def _said(message: str) -> str:
    return message[0].lower() + message[1:]


def _origin(key: str, given: Mapping[str, Any]) -> str:
    """Where the value in force came from."""
    key = key.partition(".")[0]
    if key in given:
        return "given as key=value"
    if key in _environment():
        return f"from {PREFIX}{key.upper()}"
    return f"from {user_file()}" if key in _read_toml(user_file()) else f"from {FILE} in the workspace"


def _meant(word: str) -> str:
    key = word.lstrip("-").partition("=")[0].replace("-", "_")
    near = get_close_matches(key, Config.model_fields, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}=...?"
    return "; `continualcode --help` lists all settings"
