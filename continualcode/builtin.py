"""What continualcode itself adds, through the same hooks as any plug-in. Imports what is heavy only when it is chosen."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from continualcode.approval import CommandGate, ReadOnly, Rules, TestRunner
from continualcode.config import Config
from continualcode.errors import ConfigError
from continualcode.hookspecs import (
    BackendFactory,
    Connection,
    FrontendFactory,
    Progress,
    RendererFactory,
    Surroundings,
    TeacherFactory,
    hookimpl,
)
from continualcode.protocols import ApprovalGate, Frontend, Renderer, Tool
from continualcode.sdpo import TEACHERS
from continualcode.tools import Workspace, find_sandbox, standard_tools
from continualcode.types import Message

KEYLESS = "tml-no-key-needed"
"""The Tinker client insists on a key; a server of one's own usually wants none."""

T = TypeVar("T")
U = TypeVar("U")


@hookimpl
def register_tools(config: Config, workspace: Workspace) -> list[Tool]:
    sandbox = find_sandbox(config.sandbox, network=config.bash_network)
    return standard_tools(workspace, sandbox=sandbox, bash_env=config.bash_env.replace(",", " ").split())


@hookimpl
def register_gates(config: Config) -> list[ApprovalGate]:
    readonly: list[ApprovalGate] = [ReadOnly()] if config.auto_approve_readonly else []
    tried: list[ApprovalGate] = []
    sandbox = find_sandbox(config.sandbox)  # without network: what is tried has not been approved
    if config.test_command is not None:
        tried.append(TestRunner(config.workspace, config.test_command, sandbox=sandbox))
    if config.lint_command is not None:
        tried.append(CommandGate(config.workspace, config.lint_command, sandbox=sandbox))
    if not config.rules:
        return [*readonly, *tried]
    return [Rules(config.rules, Workspace(config.workspace), unless=tried, otherwise=readonly), *tried]


@hookimpl
def register_frontends() -> Mapping[str, FrontendFactory]:
    return {"terminal": _terminal, "headless": _headless}


@hookimpl
def register_backends() -> Mapping[str, BackendFactory]:
    return {"tinker": _tinker, "local": _local}


@hookimpl
def register_teachers() -> Mapping[str, TeacherFactory]:
    return TEACHERS


@hookimpl
def register_renderers() -> Mapping[str, RendererFactory]:
    from continualcode.renderers import FAMILIES

    return {"auto": partial(_renderer, None), **{name: partial(_renderer, name) for name in FAMILIES}}


def _renderer(family: str | None, tokenizer: Any, model_name: str) -> Renderer:
    from continualcode.renderers import make_renderer

    return make_renderer(tokenizer, model_name=model_name, family=family)


def _terminal(around: Surroundings) -> Frontend:
    from continualcode.frontends.terminal import Terminal

    return Terminal(
        workspace=around.workspace,
        remember=around.remember,
        renderer=around.renderer,
        greeting=around.greeting,
        prompt=around.config.prompt,
        save=around.save,
    )


def _headless(around: Surroundings) -> Frontend:
    from continualcode.frontends.headless import Headless

    return Headless(workspace=around.workspace, prompt=around.config.prompt, save=around.save)


async def _tinker(config: Config, progress: Progress) -> Connection:
    where = config.base_url or os.environ.get("TINKER_BASE_URL") or "hosted Tinker"
    progress("loading the Tinker client")
    service = await asyncio.to_thread(_tinker_service, config)
    progress(f"connecting to {where}")
    return await _connect(service, config, progress, notes=(f"{config.model_name} on {where}",))


def _tinker_service(config: Config) -> Any:
    import tinker

    key = os.environ.get("TINKER_API_KEY") or KEYLESS
    try:
        return tinker.ServiceClient(base_url=config.base_url, api_key=key)
    except (tinker.TinkerError, ValueError) as error:
        raise ConfigError(f"the Tinker client cannot be made: {error}; is TINKER_API_KEY a key of yours?") from error


async def _local(config: Config, progress: Progress) -> Connection:
    progress("loading torch")
    service, source = await asyncio.to_thread(_local_service, config, progress)
    progress(f"loading {config.model_name}")
    connection = await _connect(
        service,
        config,
        progress,
        notes=(f"{config.model_name}, embedded in this process",),
        discard_below=_checkpoints(config),
        load_tokenizer=partial(_local_tokenizer, source),
    )
    return replace(connection, ordinary=_ordinary(config.model_name))


def _ordinary(model_name: str) -> tuple[tuple[str, Message], ...]:
    """Of the model that was taught them at its cold start."""
    from continualcode.local.coldstart.ordinary import ordinary_requests
    from continualcode.local.pretrained import cold_start

    return ordinary_requests() if cold_start(model_name) is not None else ()


def _local_service(config: Config, progress: Progress) -> tuple[Any, str]:
    """The engine, and where the model's files are."""
    from continualcode.local import ServiceClient, pretrained

    def told(doing: str, done: int, total: int) -> None:
        progress(f"{doing} {done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else doing)

    service = ServiceClient(state_dir=_checkpoints(config))
    return service, pretrained.resolve(config.model_name, progress=told)


def _local_tokenizer(source: str) -> Any:
    from continualcode.local.loading import load_tokenizer

    return load_tokenizer(source)


async def _connect(
    service: Any,
    config: Config,
    progress: Progress,
    *,
    notes: tuple[str, ...],
    discard_below: Path | None = None,
    load_tokenizer: Callable[[], Any] | None = None,
) -> Connection:
    """`load_tokenizer` runs while the backend is connected; without it the backend's own is taken afterwards."""
    from continualcode.backends import TinkerBackend

    connecting = TinkerBackend.connect(
        service,
        model_name=config.model_name,
        lora_rank=config.lora_rank,
        seed=config.seed,
        load_checkpoint_path=config.load_checkpoint_path,
    )
    if load_tokenizer is not None:
        backend, tokenizer = await _both(connecting, asyncio.to_thread(load_tokenizer))
    else:
        backend = await connecting
        progress("loading the tokenizer")
        tokenizer = await asyncio.to_thread(lambda: backend.tokenizer)

    async def close() -> None:
        await backend.close()
        if discard_below is not None:
            await asyncio.to_thread(service.close)

    discard = partial(_remove, discard_below) if discard_below is not None else None
    return Connection(backend, tokenizer, close, discard, notes)


async def _both(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """Waits for both; of two errors the first's is raised, and the other's is not left to be reported."""
    one, two = await asyncio.gather(first, second, return_exceptions=True)
    if isinstance(one, BaseException):
        raise one
    if isinstance(two, BaseException):
        raise two
    return one, two


def _checkpoints(config: Config) -> Path:
    return config.state_dir / "checkpoints"


def _remove(below: Path, path: str) -> None:
    """Removes a checkpoint's folder, and never anything that lies elsewhere."""
    if Path(path).resolve().is_relative_to(below.resolve()):
        shutil.rmtree(path)
