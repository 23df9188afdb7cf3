"""Puts an agent together from a Config: the one place that knows all the parts, and none of their insides.

agent = await assemble(Config(workspace="."), gates=[MyGate()])
async for event in agent.run("fix the failing test"):
    print(event)
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from pluggy import PluginManager

from continualcode.agent import Agent
from continualcode.approval import Remember
from continualcode.approval.remember import allowed_file
from continualcode.checkpoint import SaveEvery
from continualcode.config import FILE, Config, user_file
from continualcode.errors import PluginError
from continualcode.events import Event
from continualcode.hookspecs import (
    BackendFactory,
    Connection,
    FrontendFactory,
    Progress,
    RendererFactory,
    Surroundings,
    TeacherFactory,
)
from continualcode.plugins import BUILT_IN, listed, load_plugins, observer, owned_twice, selected
from continualcode.policy import Policy
from continualcode.prompts import SYSTEM_PROMPT
from continualcode.protocols import ApprovalGate, Backend, Critic, Frontend, Learner, Renderer, Tool
from continualcode.sdpo import SDPOConfig, SDPOTrainer
from continualcode.tools import ToolRegistry, Workspace, find_sandbox, tool
from continualcode.tools.snapshots import Snapshots
from continualcode.types import Capabilities, Conversation, Message, Sampling

CALLER = "the caller"


@dataclass(frozen=True, slots=True)
class Additions:
    """What the caller adds to what Config and plug-ins say."""

    gates: Sequence[ApprovalGate] = ()
    tools: Sequence[Tool | Callable[..., object]] = ()
    critics: Sequence[Critic] = ()
    learner: Learner | None = None
    """Instead of an SDPOTrainer on the backend."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """An agent with everything that belongs to it. `close` it, or use it as an async context manager."""

    agent: Agent
    config: Config
    workspace: Workspace
    backend: Backend
    frontend: Frontend | None
    notes: tuple[str, ...]
    """What a person should know first, a line each."""
    saver: SaveEvery | None
    """None when nothing is trained."""
    disconnect: Callable[[], Awaitable[None]]

    async def close(self) -> str | None:
        """Saves what was learned and not saved yet, then leaves the backend. Returns the path that
        `load_checkpoint_path` takes, or None when nothing was learned. Raises BackendError when it cannot be saved."""
        await self.agent.settle()
        try:
            return await self.saver.close() if self.saver is not None else None
        finally:
            await self.disconnect()

    async def __aenter__(self) -> Assembly:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


async def assemble(
    config: Config | None = None,
    *,
    gates: Sequence[ApprovalGate] = (),
    tools: Sequence[Tool | Callable[..., object]] = (),
    learner: Learner | None = None,
    critics: Sequence[Critic] = (),
    plugins: Sequence[object] = (),
) -> Agent:
    """An agent for other programs to drive; no frontend is made, so what no gate decides on is denied.

    Args:
        config: default Config(), which reads the environment and the files named in continualcode.config.
        gates: asked first.
        tools: besides the standard ones and those of plug-ins.
        learner: instead of an SDPOTrainer; it is still saved after every `save_every` steps.
        critics: judge approved calls by their results.
        plugins: besides the installed ones.

    Raises ConfigError, PluginError, or BackendError when the model cannot be reached. Weights are saved after every
    `save_every` steps; a program that also wants the rest saved at its end uses `build`.
    """
    additions = Additions(gates, tools, critics, learner)
    return (await build(config or Config(), load_plugins(*plugins), additions)).agent


async def build(
    config: Config,
    plugins: PluginManager,
    additions: Additions = Additions(),
    *,
    with_frontend: bool = False,
    progress: Progress = lambda doing: None,
) -> Assembly:
    """An agent and all that belongs to it; `progress` is told what is waited for. Raises as `assemble` does."""
    prepared = _prepare(config, plugins, additions, with_frontend)
    connection = await prepared.connect(config, progress)
    try:
        return _joined(config, prepared, connection, additions)
    except BaseException:
        await connection.close()
        raise


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What can be had, and can fail, before the model is waited for."""

    workspace: Workspace
    snapshots: Snapshots
    tools: ToolRegistry
    gates: tuple[ApprovalGate, ...]
    remember: Remember
    observe: Callable[[Event], None]
    connect: BackendFactory
    make_renderer: RendererFactory
    make_teacher: TeacherFactory
    make_frontend: FrontendFactory | None


def _prepare(config: Config, plugins: PluginManager, additions: Additions, with_frontend: bool) -> _Prepared:
    workspace = Workspace(config.workspace, settings=(config.workspace / FILE, user_file().parent), own=_own(config))
    return _Prepared(
        workspace,
        Snapshots(workspace, config.state_dir),
        _tools(config, plugins, workspace, additions.tools),
        (*additions.gates, *(gate for _, gate in listed(plugins, "register_gates", config=config))),
        Remember(allowed_file(config.state_dir, workspace.root) if with_frontend else None),
        observer(plugins),
        selected(plugins, "register_backends", config.backend),
        selected(plugins, "register_renderers", config.renderer),
        selected(plugins, "register_teachers", config.teacher_regularization),
        selected(plugins, "register_frontends", config.frontend) if with_frontend else None,
    )


def _joined(config: Config, prepared: _Prepared, connection: Connection, additions: Additions) -> Assembly:
    renderer = prepared.make_renderer(connection.tokenizer, config.model_name)
    trained = _training(config, prepared, connection, renderer, additions.learner)
    sandbox = find_sandbox(config.sandbox, network=config.bash_network)
    notes = (*_opening(config), *_recovered(prepared.snapshots), *connection.notes, *trained.notes, sandbox.note)
    frontend: Frontend | None = None
    if prepared.make_frontend is not None:
        save = trained.saver.close if trained.saver is not None else _nothing
        around = Surroundings(config, prepared.workspace, prepared.remember, renderer, notes, save)
        frontend = prepared.make_frontend(around)
    last = () if frontend is None else (frontend,)
    agent = Agent(
        Policy(connection.backend, renderer, _sampling(config, trained.topk)),
        prepared.tools,
        (*prepared.gates, prepared.remember, *last),
        learner=trained.saver,
        critics=(*additions.critics, *(gate for gate in prepared.gates if isinstance(gate, Critic)), *last),
        observers=(prepared.observe,),
        snapshots=prepared.snapshots,
        system=SYSTEM_PROMPT,
    )
    return Assembly(
        agent, config, prepared.workspace, connection.backend, frontend, notes, trained.saver, connection.close
    )


async def _nothing() -> None:
    """Saves nothing, where nothing is learned."""


@dataclass(frozen=True, slots=True)
class _Training:
    """How corrections are learned, if they are."""

    saver: SaveEvery | None
    topk: int = 0
    notes: tuple[str, ...] = ()


def _training(
    config: Config, prepared: _Prepared, connection: Connection, renderer: Renderer, given: Learner | None
) -> _Training:
    if not config.enable_training:
        return _Training(None, notes=("enable_training=false: corrections deny, and are not learned",))
    backend, session = connection.backend, f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    learner, topk, notes = given, 0, backend.capabilities.notes
    if learner is None:
        settings, said = _distillation(config, backend.capabilities)
        teacher = prepared.make_teacher(backend, config.teacher_update_rate)
        opening = Conversation((Message("system", SYSTEM_PROMPT),), prepared.tools.specs)
        ordinary = [(opening.add(Message("user", text)), reply) for text, reply in connection.ordinary]
        learner = trainer = SDPOTrainer(backend, renderer, settings, teacher=teacher, ordinary=ordinary)
        topk, notes = trainer.topk, (*notes, *said, *trainer.notes)
    saver = SaveEvery(learner, backend, every=config.save_every, name=session, discard=connection.discard)
    return _Training(saver, topk, notes)


def _distillation(config: Config, able: Capabilities) -> tuple[SDPOConfig, tuple[str, ...]]:
    """What was asked for; where nobody asked, what this backend can do, announced."""
    shared = [field.name for field in fields(SDPOConfig) if field.name in Config.model_fields]
    settings = SDPOConfig(**{name: getattr(config, name) for name in shared})
    if able.distillation_topk or config.chosen("alpha") or config.chosen("distillation_topk"):
        return settings, ()
    note = "distilling on the sampled token alone (alpha=1): this backend gives no candidate log-probabilities"
    return replace(settings, alpha=1.0, distillation_topk=None), (note,)


def _sampling(config: Config, topk: int) -> Sampling:
    """The trainer's candidates come with every sample, so that they need not be asked for again."""
    return Sampling(config.max_tokens, config.temperature, config.top_p, config.seed, candidates=topk)


def _opening(config: Config) -> tuple[str, ...]:
    notes: list[str] = []
    if config.backend == "local" and not config.chosen("backend"):
        notes.append(
            "No TINKER_API_KEY, so this is the embedded model: it shows the loop; real work wants a larger one "
            "(set TINKER_API_KEY, or base_url=..., or model_name=...)"
        )
    if config.load_checkpoint_path is not None:
        notes.append(f"going on from {config.load_checkpoint_path}")
    return tuple(notes)


def _own(config: Config) -> tuple[Path, ...]:
    """What was learned, remembered and recorded, and where plug-ins are installed in an environment of our own."""
    environment = (Path(sys.prefix),) if sys.prefix != sys.base_prefix else ()
    return (config.state_dir, *environment)


def _recovered(snapshots: Snapshots) -> list[str]:
    return [
        f"an earlier session ended in the middle of {change.call}; undo takes back what it did: {change.said}"
        for change in snapshots.recovered
    ]


def _tools(
    config: Config, plugins: PluginManager, workspace: Workspace, given: Sequence[Tool | Callable[..., object]]
) -> ToolRegistry:
    """The built-ins' first, then those of plug-ins, then the caller's. Raises PluginError when two have one name."""
    offered = listed(plugins, "register_tools", config=config, workspace=workspace)
    ranked = [*sorted(offered, key=lambda pair: pair[0] != BUILT_IN), *((CALLER, item) for item in given)]
    made: dict[str, Tool] = {}
    owners: dict[str, str] = {}
    for owner, item in ranked:
        each = item if isinstance(item, Tool) else tool(item)
        if (name := each.spec.name) in owners:
            raise PluginError(owned_twice(f"tool '{name}'", owner, owners[name]))
        made[name], owners[name] = each, owner
    return ToolRegistry(made.values())
