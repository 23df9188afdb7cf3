import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest

import continualcode.builtin
from continualcode import Config, PluginError, hookimpl, hookspecs
from continualcode.approval import ApproveAll
from continualcode.cli import main
from continualcode.errors import ConfigError
from continualcode.events import Thinking
from continualcode.plugins import HOOKS, asked, inventory, load_plugins, named, observer, selected
from continualcode.sdpo import CurrentTeacher
from continualcode.tools import READ_ONLY, Workspace

pytestmark = pytest.mark.usefixtures("isolated")
DOCS = Path(__file__).parent.parent / "docs" / "plugins.md"


def plugin(name="mine", /, **functions):
    """A module-like plug-in whose functions implement the hooks they are named after."""
    return SimpleNamespace(__name__=name, **{hook: hookimpl(function) for hook, function in functions.items()})


def load(*plugins):
    return load_plugins(*plugins, entry_points=False)


def refusal_of(*plugins):
    with pytest.raises(PluginError) as raised:
        load(*plugins)
    return str(raised.value)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts a distribution with one entry point on the path, as pip would."""

    def install(distribution, target, source):
        module = target.partition(":")[0]
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[continualcode]\n{module} = {target}\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_with_what_it_is_offered(hook):
    offered = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"### `{hook}({offered})`" in DOCS.read_text()
    assert inspect.getdoc(getattr(hookspecs, hook))


def test_only_hooks_that_exist_are_documented():
    headings = [line for line in DOCS.read_text().splitlines() if line.startswith("### `")]
    assert len(headings) == len(HOOKS) == 8


def test_built_ins_come_through_the_same_hooks():
    manager = load()
    assert sorted(named(manager, "register_backends")) == ["local", "tinker"]
    assert sorted(named(manager, "register_frontends")) == ["headless", "terminal"]
    assert sorted(named(manager, "register_teachers")) == ["ema", "frozen", "none", "trust-region"]
    assert {"auto", "hermes", "gpt-oss"} <= set(named(manager, "register_renderers"))
    assert manager.get_plugin("continualcode.builtin") is continualcode.builtin


def test_readonly_tools_are_approved_only_when_told_so():
    for told in (True, False):
        gates = asked(load(), "register_gates", config=Config(auto_approve_readonly=told))
        assert [gate.tools for _, found in gates for gate in found] == ([READ_ONLY] if told else [])


def test_each_manager_is_new():
    assert load(plugin("one", observe=lambda event: None)).get_plugin("one") is not None
    assert load().get_plugin("one") is None


def test_a_misspelt_hook_is_refused_with_the_nearest_name():
    assert refusal_of(plugin("mine", register_tool=lambda: [])) == (
        "plug-in 'mine' implements an unknown hook 'register_tool'; did you mean 'register_tools'?"
    )


def test_an_argument_that_is_not_offered_is_refused():
    problem = refusal_of(plugin("mine", register_gates=lambda settings: []))
    assert "'mine'" in problem
    assert "settings" in problem


def test_a_plugin_that_forgot_to_mark_its_hooks_is_refused():
    assert "'mine' implements no hook; mark" in refusal_of(SimpleNamespace(__name__="mine", observe=lambda event: None))


def test_a_hook_wrapper_is_refused_rather_than_ignored():
    @hookimpl(wrapper=True)
    def register_gates():
        return (yield)

    assert "register_gates is a hook wrapper" in refusal_of(
        SimpleNamespace(__name__="mine", register_gates=register_gates)
    )


def test_two_owners_of_one_name_are_both_named():
    manager = load(plugin("mine", register_teachers=lambda: {"ema": CurrentTeacher}))
    with pytest.raises(PluginError) as raised:
        named(manager, "register_teachers")
    assert str(raised.value).startswith("teacher 'ema' is registered by both 'mine' and 'continualcode.builtin'")


def test_two_plugins_of_one_name_are_refused():
    problem = refusal_of(plugin("mine", observe=lambda event: None), plugin("mine", observe=lambda event: None))
    assert "the plug-in name 'mine' is registered by both" in problem


def test_a_plugin_that_does_not_import_is_named_with_its_distribution(installed):
    installed("broken_dist", "broken_module", "raise RuntimeError('on strike')")
    with pytest.raises(
        PluginError, match=r"broken_module \(broken_dist 1\.0\) cannot be imported .*RuntimeError: on strike"
    ):
        load_plugins()


def test_an_installed_plugin_is_found_and_can_be_left_out(installed):
    installed(
        "good_dist",
        "good_module",
        "from continualcode import hookimpl\n@hookimpl\ndef register_teachers():\n    return {'wise': None}\n",
    )
    assert "wise" in named(load_plugins(), "register_teachers")
    assert "wise" not in named(load(), "register_teachers")


def test_a_hook_that_raises_is_reported_as_its_plugins_fault():
    def fail(config):
        raise KeyError("lost")

    manager = load(plugin("mine", register_gates=fail))
    with pytest.raises(PluginError, match="plug-in 'mine': register_gates failed: KeyError: 'lost'"):
        asked(manager, "register_gates", config=Config())


@pytest.mark.parametrize(
    ("hook", "answer", "wanted"),
    [("register_gates", ApproveAll(), "a sequence"), ("register_teachers", ["ema"], "a mapping of names")],
)
def test_an_answer_of_the_wrong_kind_is_its_plugins_fault(hook, answer, wanted):
    manager = load(plugin("mine", **{hook: lambda: answer}))
    with pytest.raises(PluginError, match=f"plug-in 'mine': {hook} returned .*, not {wanted}"):
        inventory(manager, Config())


def test_the_last_registered_is_asked_first_and_the_built_ins_last():
    one, two = (plugin(name, register_gates=lambda: [ApproveAll()]) for name in ("one", "two"))
    assert [owner for owner, _ in asked(load(one, two), "register_gates", config=Config())] == [
        "two",
        "one",
        "continualcode.builtin",
    ]


def test_an_unknown_name_is_told_what_there_is():
    with pytest.raises(ConfigError) as raised:
        selected(load(), "register_backends", "tinkr")
    assert str(raised.value) == "no backend 'tinkr'; installed: local, tinker; did you mean 'tinker'?"


def test_every_observer_sees_every_event_and_a_failing_one_is_named():
    seen = []

    def fail(event):
        raise ValueError("blind")

    observer(
        load(
            plugin("one", observe=lambda event: seen.append(event)),
            plugin("two", observe=lambda event: seen.append(event)),
        )
    )(Thinking())
    assert seen == [Thinking(), Thinking()]
    with pytest.raises(PluginError, match="plug-in 'three': observe failed: ValueError: blind"):
        observer(load(plugin("three", observe=fail)))(Thinking())


def test_the_inventory_lists_what_each_adds():
    added = inventory(load(plugin("mine", register_gates=lambda: [ApproveAll()], observe=lambda event: None)), Config())
    assert added["mine"] == {"gates": ["ApproveAll"], "observes": ["every event"]}
    assert added["continualcode.builtin"]["tools"] == ["read", "write", "edit", "edit_lines", "glob", "grep", "bash"]


def test_a_benchmark_of_a_plugin_can_be_run(installed):
    installed(
        "bench_dist",
        "bench_module",
        "from continualcode import hookimpl\n@hookimpl\ndef register_benchmarks():\n"
        "    return {'count': lambda words: len(words)}\n",
    )
    assert main(["benchmark", "count", "a", "b", "c"]) == 3


def test_tools_get_the_workspace_of_the_agent(tmp_path):
    workspace, seen = Workspace(tmp_path), []
    manager = load(plugin("mine", register_tools=lambda workspace: seen.append(workspace)))
    asked(manager, "register_tools", config=Config(), workspace=workspace)
    assert seen == [workspace]
