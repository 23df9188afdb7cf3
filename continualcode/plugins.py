"""Finds plug-ins, checks them and asks them; a new manager each time, nothing global. Knows nothing of what they add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pluggy import HookImpl, PluginManager, PluginValidationError

from continualcode import hookspecs
from continualcode.config import Config
from continualcode.errors import ConfigError, PluginError
from continualcode.events import Event
from continualcode.protocols import Tool
from continualcode.tools import Workspace

BUILT_IN = "continualcode.builtin"
HOOKS = tuple(name for name, value in vars(hookspecs).items() if getattr(value, f"{hookspecs.PROJECT}_spec", None))
"""The names of all hooks."""


def load_plugins(*plugins: object, entry_points: bool = True) -> PluginManager:
    """A manager with the built-ins, the installed plug-ins (entry-point group `continualcode`) and these, checked.

    Raises PluginError when one cannot be imported, implements no hook, one that does not exist or one wrongly.
    """
    manager = PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    _register(manager, import_module(BUILT_IN), BUILT_IN)
    if entry_points:
        for entry_point in _installed():
            _register(manager, _import(entry_point), _title(entry_point))
    for plugin in plugins:
        _register(manager, plugin, _name_of(plugin))
    return manager


def asked(manager: PluginManager, hook: str, **offered: object) -> list[tuple[str, Any]]:
    """What each plug-in answers, with its name: the last registered first, the built-ins last.

    Raises PluginError naming the plug-in that raised or answered with what the hook does not return.
    """
    answers = []
    for implementation in reversed(_implementations(manager, hook)):
        answer = _call(implementation, hook, offered)
        if answer is not None:
            answers.append((implementation.plugin_name, answer))
    return answers


def listed(manager: PluginManager, hook: str, **offered: object) -> list[tuple[str, Any]]:
    """The items of a hook that answers with a sequence, each with its owner's name."""
    answers = asked(manager, hook, **offered)
    for owner, items in answers:
        if not isinstance(items, Sequence) or isinstance(items, str):
            raise PluginError(f"plug-in '{owner}': {hook} returned {type(items).__name__}, not a sequence")
    return [(owner, item) for owner, items in answers for item in items]


def named(manager: PluginManager, hook: str) -> Mapping[str, Any]:
    """The factories of a hook that answers with a mapping. Raises PluginError when two plug-ins own one name."""
    found: dict[str, Any] = {}
    owners: dict[str, str] = {}
    for owner, factories in _mappings(manager, hook):
        for name, factory in factories.items():
            if name in owners:
                raise PluginError(owned_twice(f"{_noun(hook)} '{name}'", owner, owners[name]))
            found[name], owners[name] = factory, owner
    return dict(sorted(found.items()))


def selected(manager: PluginManager, hook: str, name: str) -> Any:
    """The factory of that name. Raises ConfigError naming those that there are."""
    found = named(manager, hook)
    if name not in found:
        near = get_close_matches(name, found, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"no {_noun(hook)} '{name}'; installed: {', '.join(found)}{hint}")
    return found[name]


def owned_twice(what: str, one: str, other: str) -> str:
    """Says that two plug-ins claim one name."""
    return f"{what} is registered by both '{other}' and '{one}'; uninstall one of them or rename what it adds"


def observer(manager: PluginManager) -> Callable[[Event], None]:
    """Shows an event to every plug-in that observes."""
    implementations = _implementations(manager, "observe")

    def observe(event: Event) -> None:
        for implementation in implementations:
            _call(implementation, "observe", {"event": event})

    return observe


def inventory(manager: PluginManager, config: Config) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """What each plug-in adds, by kind (tools, gates, backends ...); the built-ins first."""
    found: dict[str, dict[str, list[str]]] = {name: {} for name, _ in manager.list_name_plugin()}
    tools = listed(manager, "register_tools", config=config, workspace=Workspace(config.workspace))
    for owner, item in reversed(tools):
        found[owner].setdefault("tools", []).insert(0, item.spec.name if isinstance(item, Tool) else _name_of(item))
    for owner, gate in listed(manager, "register_gates", config=config):
        found[owner].setdefault("gates", []).append(type(gate).__name__)
    for hook in HOOKS:
        if hook not in ("register_tools", "register_gates", "observe"):
            for owner, factories in _mappings(manager, hook):
                found[owner][hook.removeprefix("register_")] = sorted(factories)
    for implementation in _implementations(manager, "observe"):
        found[implementation.plugin_name]["observes"] = ["every event"]
    return found


def _mappings(manager: PluginManager, hook: str) -> list[tuple[str, Mapping[str, Any]]]:
    answers = asked(manager, hook)
    for owner, factories in answers:
        if not isinstance(factories, Mapping):
            raise PluginError(f"plug-in '{owner}': {hook} returned {type(factories).__name__}, not a mapping of names")
    return answers


def _implementations(manager: PluginManager, hook: str) -> list[HookImpl]:
    """In order of registration. `manager.hook` itself would not tell who answered what."""
    caller = getattr(manager.hook, hook)
    found: list[HookImpl] = caller.get_hookimpls()
    return found


def _call(implementation: HookImpl, hook: str, offered: Mapping[str, object]) -> Any:
    try:
        return implementation.function(*(offered[name] for name in implementation.argnames))
    except ConfigError:
        raise
    except Exception as error:  # whatever a plug-in raises, the user must be told whose it is
        raise PluginError(
            f"plug-in '{implementation.plugin_name}': {hook} failed: {type(error).__name__}: {error}"
        ) from error


def _register(manager: PluginManager, plugin: object, name: str) -> None:
    if (present := manager.get_plugin(name)) is not None:
        raise PluginError(owned_twice(f"the plug-in name '{name}'", _name_of(plugin), _name_of(present)))
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except (PluginValidationError, ValueError) as error:
        raise PluginError(_unknown_hook(manager, plugin, name) or f"plug-in '{name}': {error}") from error
    callers = manager.get_hookcallers(plugin) or []
    if not callers:
        raise PluginError(f"plug-in '{name}' implements no hook; mark its functions with @continualcode.hookimpl")
    for caller in callers:
        if any(item.wrapper or item.hookwrapper for item in caller.get_hookimpls() if item.plugin is plugin):
            raise PluginError(f"plug-in '{name}': {caller.name} is a hook wrapper; only plain hooks are asked")


def _unknown_hook(manager: PluginManager, plugin: object, name: str) -> str | None:
    """Names the hook that does not exist, and the one that was probably meant."""
    for caller in manager.get_hookcallers(plugin) or []:
        if not caller.has_spec():
            near = get_close_matches(caller.name, HOOKS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; the hooks are: {', '.join(HOOKS)}"
            return f"plug-in '{name}' implements an unknown hook '{caller.name}'{hint}"
    return None


def _installed() -> list[EntryPoint]:
    return sorted(entry_points(group=hookspecs.PROJECT), key=lambda item: (_title(item), item.value))


def _import(entry_point: EntryPoint) -> object:
    try:
        return entry_point.load()
    except Exception as error:  # importing runs the plug-in's code, which may raise anything
        raise PluginError(
            f"plug-in {_title(entry_point)} cannot be imported ({entry_point.value}): {type(error).__name__}: {error}; "
            f"update or uninstall that distribution"
        ) from error


def _title(entry_point: EntryPoint) -> str:
    where = f" ({entry_point.dist.name} {entry_point.dist.version})" if entry_point.dist else ""
    return f"{entry_point.name}{where}"


def _name_of(plugin: object) -> str:
    return str(getattr(plugin, "__name__", None) or type(plugin).__qualname__)


def _noun(hook: str) -> str:
    return hook.removeprefix("register_").removesuffix("s")
