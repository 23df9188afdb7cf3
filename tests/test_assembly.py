import json
import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from continualcode import (
    BackendError,
    CapabilityError,
    Config,
    ConfigError,
    Deny,
    PluginError,
    TrainReport,
    assemble,
    hookimpl,
    hookspecs,
)
from continualcode.approval import ApproveAll, ReadOnly, Remember
from continualcode.approval.remember import allowed_file
from continualcode.assembly import Additions, build
from continualcode.checkpoint import SaveEvery
from continualcode.events import Learned, Stopped
from continualcode.journal import Journal
from continualcode.plugins import HOOKS, load_plugins
from continualcode.sdpo import CurrentTeacher, EMATeacher, SDPOTrainer
from continualcode.testing import BytesRenderer, RecordingLearner, ScriptedBackend, ScriptedGate
from continualcode.tools import find_sandbox
from continualcode.types import Capabilities

pytestmark = pytest.mark.usefixtures("isolated")
WRITE = ("write", {"path": "a.txt", "content": "x"})
NOTHING_ADDED = Additions()
SETTINGS = {"backend": "scripted", "renderer": "bytes", "auto_approve_readonly": True}


def settings(**values):
    return Config(**SETTINGS | values)


def put(name, text):
    Path(name).write_text(text)


def content_of(name):
    return Path(name).read_text() if Path(name).exists() else None


async def events_of(agent, text="do it"):
    return [event async for event in agent.run(text)]


@pytest.fixture
def assembled(scripted_plugin):
    """Builds on a ScriptedBackend, without what is installed on this machine."""

    async def make(*replies, plugins=(), capabilities=None, additions=NOTHING_ADDED, **values):
        backend = ScriptedBackend(replies, **({"capabilities": capabilities} if capabilities else {}))
        manager = load_plugins(scripted_plugin(backend), *plugins, entry_points=False)
        return await build(settings(**values), manager, additions)

    return make


async def test_an_agent_is_three_lines_away(scripted_plugin):
    backend = ScriptedBackend([WRITE, "done"])
    agent = await assemble(settings(), gates=[ApproveAll()], plugins=[scripted_plugin(backend)])
    assert (await events_of(agent))[-1] == Stopped("answered", "done")
    assert content_of("a.txt") == "x"


async def test_a_denied_call_trains_and_the_step_is_saved(assembled):
    gate = ScriptedGate(Deny("use edit_lines"))
    assembly = await assembled(WRITE, "sorry", additions=Additions(gates=[gate]), save_every=1, learning_rate=1e-3)
    (learned,) = [event for event in await events_of(assembly.agent) if isinstance(event, Learned)]
    assert learned.report.logprob_after != learned.report.logprob_before
    assert content_of("a.txt") is None
    assert len(assembly.backend.saved) == 1
    path = await assembly.close()
    assert path == f"scripted://{next(iter(assembly.backend.saved))}"


async def test_what_no_gate_decides_on_is_denied_without_a_lesson(assembled):
    assembly = await assembled(WRITE, "well")
    await events_of(assembly.agent)
    assert content_of("a.txt") is None
    assert assembly.backend.steps == []


async def test_candidates_come_with_the_sample_so_that_the_trainer_need_not_ask(assembled):
    assembly = await assembled(distillation_topk=7)
    assert assembly.agent.policy.sampling.candidates == 7
    without = await assembled(enable_training=False)
    assert without.agent.policy.sampling.candidates == 0


async def test_settings_reach_the_trainer_and_the_sampler(assembled):
    assembly = await assembled(
        learning_rate=2e-4, alpha=0.25, is_clip=None, distillation_add_tail=False, teacher_regularization="ema",
        max_tokens=77, seed=5,
    )  # fmt: skip
    trainer = assembly.saver.learner
    assert isinstance(trainer.teacher, EMATeacher)
    asked = trainer.config
    assert (asked.learning_rate, asked.alpha, asked.is_clip, asked.distillation_add_tail) == (2e-4, 0.25, None, False)
    assert (assembly.agent.policy.sampling.max_tokens, assembly.agent.policy.sampling.seed) == (77, 5)


async def test_a_backend_without_candidates_is_an_announced_approximation_when_nobody_asked_for_more(assembled):
    assembly = await assembled(capabilities=Capabilities(notes=("this service is old",)))
    assert assembly.saver.learner.topk == 0
    assert assembly.saver.learner.config.alpha == 1
    assert "this service is old" in assembly.notes
    assert any("sampled token alone (alpha=1)" in note for note in assembly.notes)


@pytest.mark.parametrize("asked", [{"alpha": 0.5}, {"distillation_topk": 5}])
async def test_what_was_asked_for_and_cannot_be_had_is_an_error(assembled, asked):
    with pytest.raises(CapabilityError, match="no candidate log-probabilities"):
        await assembled(capabilities=Capabilities(), **asked)


async def test_fewer_candidates_than_asked_for_are_announced(assembled):
    few = Capabilities(sample_candidates=3, candidate_logprobs=True, weighted_candidates=True)
    assembly = await assembled(capabilities=few)
    assert any("3 candidates" in note for note in assembly.notes)


async def test_without_training_a_denial_only_denies(assembled):
    gate = ScriptedGate(Deny("no"))
    assembly = await assembled(WRITE, "ok", additions=Additions(gates=[gate]), enable_training=False)
    assert not any(isinstance(event, Learned) for event in await events_of(assembly.agent))
    assert assembly.saver is None
    assert any("not learned" in note for note in assembly.notes)
    assert await assembly.close() is None


async def test_a_learner_of_ones_own_takes_the_trainers_place(assembled):
    mine = RecordingLearner()
    assembly = await assembled(WRITE, "ok", additions=Additions(gates=[ScriptedGate(Deny("no"))], learner=mine))
    await events_of(assembly.agent)
    assert [lesson.reason for lesson in mine.lessons] == ["no"]
    assert await assembly.close() is not None


class Playhouse:
    """A plug-in with a frontend, which keeps its surroundings, and a gate that refuses what is secret."""

    @hookimpl
    def register_frontends(self):
        return {"stage": self.build}

    @hookimpl
    def register_gates(self):
        return [NoSecrets()]

    def build(self, around):
        self.around = around
        return Stage()


class Stage:
    async def review(self, turn, call):
        return None

    async def critique(self, turn, result):
        return None

    async def run(self, agent):
        await events_of(agent)


class NoSecrets:
    async def review(self, turn, call):
        return Deny("secret", teach=False) if call.arguments.get("path") == "secret" else None


@pytest.fixture
def staged(scripted_plugin):
    """Builds with a frontend, that of Playhouse."""

    async def make(house, *replies, gates=(), **values):
        manager = load_plugins(scripted_plugin(ScriptedBackend(replies)), house, entry_points=False)
        config = settings(frontend="stage", **values)
        return await build(config, manager, Additions(gates=gates), with_frontend=True)

    return make


async def test_gates_are_asked_from_the_caller_to_the_frontend(staged):
    house = Playhouse()
    assembly = await staged(house, gates=[ScriptedGate()])
    assert [type(gate) for gate in assembly.agent.gates] == [ScriptedGate, NoSecrets, ReadOnly, Remember, Stage]
    assert assembly.agent.critics == (assembly.frontend,)
    assert house.around.greeting == assembly.notes == ("a scripted model", find_sandbox().note)
    assert house.around.remember is assembly.agent.gates[3]
    assert house.around.workspace is assembly.workspace


async def test_a_plugins_gate_refuses_what_would_be_approved_without_asking(staged):
    put("secret", "key")
    put("plain", "text")
    calls = [("read", {"path": "secret"}), ("read", {"path": "plain"}), "done"]
    assembly = await staged(Playhouse(), *calls)
    await assembly.frontend.run(assembly.agent)
    told = [message.content for message in assembly.agent.conversation.messages if message.role == "tool"]
    assert told[0] == "denied: secret"
    assert "text" in told[1]


async def test_a_frontend_can_save_at_the_end_and_is_told_when_there_was_nothing(staged):
    house = Playhouse()
    await staged(house)
    assert await house.around.save() is None
    assembly = await staged(house, WRITE, "ok", gates=[ScriptedGate(Deny("no"))])
    await assembly.frontend.run(assembly.agent)
    path = await house.around.save()
    assert path.startswith("scripted://")
    assert await assembly.close() == path
    assert len(assembly.backend.saved) == 1


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("backend", "no backend 'scripter'"),
        ("renderer", "no renderer 'scripter'"),
        ("teacher_regularization", "no teacher 'scripter'"),
        ("frontend", "no frontend 'scripter'"),
    ],
)
async def test_unknown_names_are_refused_before_the_model_is_waited_for(scripted_plugin, setting, problem):
    plugin = scripted_plugin(ScriptedBackend())
    waited = []
    with pytest.raises(ConfigError, match=problem):
        await build(
            settings(**{setting: "scripter"}),
            load_plugins(plugin, entry_points=False),
            with_frontend=True,
            progress=waited.append,
        )
    assert waited == []


async def test_progress_says_what_is_waited_for(scripted_plugin):
    waited = []
    manager = load_plugins(scripted_plugin(ScriptedBackend()), entry_points=False)
    await build(settings(), manager, progress=waited.append)
    assert waited == ["raising the curtain"]


async def test_a_fault_after_connecting_leaves_the_backend(scripted_plugin):
    plugin = scripted_plugin(ScriptedBackend(capabilities=Capabilities()))
    with pytest.raises(CapabilityError):
        await build(settings(alpha=0), load_plugins(plugin, entry_points=False))
    assert plugin.closed == 1


async def test_an_assembly_is_left_by_its_context(assembled, scripted_plugin):
    plugin = scripted_plugin(ScriptedBackend())
    async with await build(settings(), load_plugins(plugin, entry_points=False)):
        assert plugin.closed == 0
    assert plugin.closed == 1


async def test_tools_come_in_order_and_two_of_one_name_name_both_owners(assembled):
    def shout(text: str) -> str:
        """Shout."""
        return text.upper()

    def grep(pat: str) -> str:
        """Find."""
        return pat

    assembly = await assembled(additions=Additions(tools=[shout]))
    names = [spec.name for spec in assembly.agent.conversation.tools]
    assert names == ["read", "write", "edit", "edit_lines", "glob", "grep", "bash", "shout"]
    with pytest.raises(
        PluginError, match=r"tool 'grep' is registered by both 'continualcode\.builtin' and 'the caller'"
    ):
        await assembled(additions=Additions(tools=[grep]))


async def test_every_hook_is_asked_once_but_observe(scripted_plugin):
    asked = Counter()

    def counted(hook, answer):
        def implementation():
            asked[hook] += 1
            return answer

        return hookimpl(implementation)

    lists = {"register_tools", "register_gates"}
    hooks = {hook: counted(hook, [] if hook in lists else {}) for hook in HOOKS if hook != "register_benchmarks"}
    counting = SimpleNamespace(__name__="counting", **hooks)
    house = Playhouse()
    manager = load_plugins(scripted_plugin(ScriptedBackend(["hello"])), house, counting, entry_points=False)
    assembly = await build(settings(frontend="stage"), manager, with_frontend=True)
    narrated = await events_of(assembly.agent)
    assert asked.pop("observe") == len(narrated) == 4
    assert asked == dict.fromkeys(set(hooks) - {"observe"}, 1)


async def test_a_journal_is_a_plugin_like_any_other(assembled, tmp_path):
    assembly = await assembled("hello", plugins=[Journal(tmp_path / "s.jsonl")])
    await events_of(assembly.agent)
    lines = [json.loads(line)["event"] for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert lines == ["Asked", "Thinking", "Proposed", "Stopped"]


async def test_the_embedded_model_is_announced_when_nobody_chose_it(monkeypatch, scripted_plugin):
    local = Connecting(ScriptedBackend())
    monkeypatch.setattr("continualcode.builtin._local", local.connect)
    manager = load_plugins(scripted_plugin(ScriptedBackend()), entry_points=False)
    announced = (await build(Config(renderer="bytes", null_space=False), manager)).notes
    assert announced[0].startswith("No TINKER_API_KEY, so this is the embedded model")
    assert (await build(Config(renderer="bytes", null_space=False, backend="local"), manager)).notes == (
        find_sandbox().note,
    )
    resumed = (
        await build(Config(renderer="bytes", null_space=False, backend="local", load_checkpoint_path="p"), manager)
    ).notes
    assert resumed == ("going on from p", find_sandbox().note)


class Connecting:
    def __init__(self, backend):
        self.backend = backend

    async def connect(self, config, progress):
        return hookspecs.Connection(self.backend, None, self.close)

    async def close(self):
        pass


class Learning:
    """A learner that always has something to report, or nothing."""

    def __init__(self, report=True):
        self.report = report

    async def learn(self, lessons):
        return TrainReport(step=1, lessons=1, tokens=1, loss=0.0, seconds=0.0) if self.report else None


class FailingSaves(ScriptedBackend):
    failures = 1

    async def save(self, name):
        if self.failures:
            self.failures -= 1
            raise BackendError("disk full")
        return await super().save(name)


async def test_the_report_of_a_step_can_be_waited_for_later_unless_it_is_to_be_saved():
    reported = []

    class Early(Learning):
        async def begin(self, lessons):
            async def report():
                reported.append(await self.learn(lessons))
                return reported[-1]

            return report()

    backend = ScriptedBackend()
    saver = SaveEvery(Early(), backend, every=2, name="s")
    learning = await saver.begin([])
    assert not reported
    assert await learning == reported[0]
    learning = await saver.begin([])
    assert (len(reported), list(backend.saved)) == (2, ["s-2"])
    assert await learning == reported[1]


async def test_every_nth_step_is_saved_and_the_rest_at_the_end():
    backend = ScriptedBackend()
    saver = SaveEvery(Learning(), backend, every=2, name="s")
    for _ in range(5):
        await saver.learn([])
    assert list(backend.saved) == ["s-2", "s-4"]
    assert await saver.close() == "scripted://s-5"
    assert await saver.close() == "scripted://s-5"
    assert list(backend.saved) == ["s-2", "s-4", "s-5"]


async def test_nothing_learned_is_nothing_saved():
    backend = ScriptedBackend()
    saver = SaveEvery(Learning(report=False), backend, every=1, name="s")
    assert await saver.learn([]) is None
    assert await saver.close() is None
    assert backend.saved == {}


async def test_only_the_newest_two_are_kept_and_in_the_end_the_newest():
    gone = []
    saver = SaveEvery(Learning(), ScriptedBackend(), every=1, name="s", discard=gone.append)
    for _ in range(4):
        await saver.learn([])
    assert gone == ["scripted://s-1", "scripted://s-2"]
    assert await saver.close() == "scripted://s-4"
    assert saver.paths == ["scripted://s-4"]


async def test_a_save_that_fails_does_not_undo_the_step_and_is_tried_again(caplog):
    backend = FailingSaves()
    saver = SaveEvery(Learning(), backend, every=1, name="s")
    with caplog.at_level(logging.WARNING):
        assert await saver.learn([]) is not None
    assert "not saved yet (disk full)" in caplog.text
    await saver.learn([])
    assert list(backend.saved) == ["s-2"]
    backend.failures = 2
    await saver.learn([])
    with pytest.raises(BackendError, match="disk full"):
        await saver.close()
    assert await saver.close() == "scripted://s-3"


async def test_the_trainer_can_be_had_from_the_agent(assembled):
    agent = (await assembled()).agent
    assert isinstance(agent.learner, SaveEvery)
    assert isinstance(agent.learner.learner, SDPOTrainer)
    assert isinstance(agent.learner.learner.teacher, CurrentTeacher)
    assert isinstance(agent.policy.renderer, BytesRenderer)


async def test_what_is_always_allowed_outlives_the_session_where_a_frontend_is(staged, scripted_plugin):
    first, second = Playhouse(), Playhouse()
    await staged(first)
    first.around.remember.allow_tool("write")
    assembly = await staged(second)
    assert [str(item) for item in second.around.remember.allowed] == ["every call of write"]
    assert assembly.workspace.own.holds(allowed_file(assembly.config.state_dir, assembly.workspace.root))
    alone = await build(settings(), load_plugins(scripted_plugin(ScriptedBackend()), entry_points=False))
    assert [gate.allowed for gate in alone.agent.gates if isinstance(gate, Remember)] == [()]
