"""The loop, driven through its public API with scripted proposals, real tools and a real learner."""

import asyncio

import pytest

from continualcode.agent import Agent, Limits
from continualcode.errors import BackendError, BackendUnavailableError, ToolError
from continualcode.events import (
    Asked,
    Learned,
    LearnFailed,
    Learning,
    Malformed,
    Proposed,
    Reviewed,
    Stopped,
    Thinking,
    ToolReturned,
)
from continualcode.policy import Policy
from continualcode.sdpo import SDPOTrainer
from continualcode.testing import BytesRenderer, RecordingLearner, ScriptedBackend, ScriptedGate
from continualcode.tools.registry import ToolRegistry, tool
from continualcode.types import Approve, Deny, Edit, Sampling, ToolCall

READ = ("look", {"at": "a.py"})
WRITE = ("change", {"at": "a.py"})


class Desk:
    """Two tools that write down what they were made to do."""

    def __init__(self):
        self.done = []
        self.busy = asyncio.Event()

    def registry(self):
        @tool
        def look(at: str) -> str:
            """Looks."""
            self.done.append(("look", at))
            if at == "missing":
                raise ToolError("no such thing")
            return f"saw {at}"

        @tool
        async def change(at: str) -> str:
            """Changes."""
            self.done.append(("change", at))
            self.busy.set()
            if at == "slow":
                await asyncio.sleep(60)
            return f"changed {at}"

        return ToolRegistry([look, change])


def make(replies, *gates, **options):
    desk, backend = Desk(), ScriptedBackend(replies)
    policy = Policy(backend, BytesRenderer(), Sampling(candidates=20))
    return Agent(policy, desk.registry(), gates, **options), desk, backend


async def collect(agent, text="go"):
    return [event async for event in agent.run(text)]


def kinds(events):
    return [type(event) for event in events]


def said(agent):
    return [(m.role, m.content or m.calls[0].to_json()) for m in agent.conversation.messages]


async def test_an_approved_call_runs_and_its_result_is_read_before_the_answer():
    agent, desk, _ = make([READ, "done"], ScriptedGate(Approve()))
    events = await collect(agent)
    assert kinds(events) == [Asked, Thinking, Proposed, Reviewed, ToolReturned, Thinking, Proposed, Stopped]
    assert events[-1] == Stopped("answered", "done")
    assert desk.done == [("look", "a.py")]
    assert said(agent)[2:] == [("tool", "saw a.py"), ("assistant", "done")]


async def test_a_denied_call_never_runs_is_learned_from_and_retried_with_the_new_weights():
    desk, backend = Desk(), ScriptedBackend([WRITE, READ, "done"])
    renderer = BytesRenderer()
    trainer = SDPOTrainer(backend, renderer)
    gates = [ScriptedGate(Deny("look first"), Approve())]
    agent = Agent(Policy(backend, renderer, Sampling(candidates=20)), desk.registry(), gates, learner=trainer)
    events = await collect(agent)
    assert kinds(events)[3:7] == [Reviewed, Learning, Learned, Thinking]
    assert desk.done == [("look", "a.py")]
    assert ("tool", "denied: look first") in said(agent)
    first, retry = (event.turn for event in events if isinstance(event, Proposed) and event.turn.reply.call)
    assert first.completion.origin is backend.initial_sampler
    answer = events[-2].turn
    assert retry.completion.origin is not backend.initial_sampler
    assert answer.completion.origin is backend.sampler is not retry.completion.origin
    assert [event.report for event in events if isinstance(event, Learned)] == agent.reports


async def test_an_approved_retry_completes_the_denial_before_it():
    learner = RecordingLearner()
    agent, _, _ = make([WRITE, READ, "done"], ScriptedGate(Deny("look first"), Approve()), learner=learner)
    events = await collect(agent)
    turns = [event.turn for event in events if isinstance(event, Proposed)]
    denied, completed = learner.lessons
    assert (denied.turn, denied.reason, denied.resolution) == (turns[0], "look first", None)
    assert (completed.turn, completed.reason, completed.resolution) == (turns[0], "look first", turns[1])
    assert kinds(events)[8:12] == [Reviewed, ToolReturned, Learning, Learned]


async def test_an_edited_retry_completes_every_denial_before_it():
    learner = RecordingLearner()
    gate = ScriptedGate(Deny("look first"), Deny("no, look"), Edit({"at": "b.py"}, "the other one"))
    agent, _, _ = make([WRITE, WRITE, READ, "done"], gate, learner=learner)
    await collect(agent)
    edited, first, second = learner.lessons[2:]
    assert [lesson.reason for lesson in (edited, first, second)] == ["the other one", "look first", "no, look"]
    assert all(lesson.demonstration == ToolCall("look", {"at": "b.py"}) for lesson in (edited, first, second))


async def test_only_a_gate_that_the_denying_one_let_pass_completes_its_denial():
    class Lenient:
        async def review(self, turn, call):
            return Approve() if call.name == "look" else None

    learner = RecordingLearner()
    agent, _, _ = make([WRITE, READ, WRITE, "done"], Lenient(), ScriptedGate(Deny("no"), Approve()), learner=learner)
    await collect(agent)
    denied, completed = learner.lessons
    assert completed.resolution.reply.call.name == "change"
    assert completed.turn is denied.turn


async def test_a_failed_retry_completes_nothing_and_a_new_request_ends_the_wait():
    learner = RecordingLearner()
    gate = ScriptedGate(Deny("look first"), Approve(), Approve())
    agent, _, _ = make([WRITE, ("look", {"at": "missing"}), "sorry", READ, "done"], gate, learner=learner)
    await collect(agent)
    await collect(agent, "something else")
    assert len(learner.lessons) == 1


async def test_notes_go_along_with_every_correction_and_not_into_the_conversation():
    learner = RecordingLearner()
    agent, _, _ = make([WRITE, "done"], ScriptedGate(Deny("no")), learner=learner)
    agent.note("  this project uses Poetry ")
    agent.note(" ")
    await collect(agent)
    assert learner.lessons[0].notes == ("this project uses Poetry",)
    assert not any("Poetry" in text for _, text in said(agent))


async def test_what_was_approved_is_rehearsed_and_what_failed_or_was_edited_is_not():
    class Rehearsing(RecordingLearner):
        def __init__(self):
            super().__init__()
            self.rehearsed = []

        def rehearse(self, turn):
            self.rehearsed.append(turn.reply.call)

    learner = Rehearsing()
    gate = ScriptedGate(Approve(), Approve(), Edit({"at": "b.py"}))
    agent, _, _ = make([READ, ("look", {"at": "missing"}), READ, "done"], gate, learner=learner)
    await collect(agent)
    assert learner.rehearsed == [ToolCall(*READ)]


async def test_with_no_gate_left_to_ask_nothing_runs_and_nothing_is_learned():
    learner = RecordingLearner()
    agent, desk, _ = make([WRITE, "sorry"], ScriptedGate(None), learner=learner)
    events = await collect(agent)
    assert events[3].verdict == Deny("no gate approved it", teach=False)
    assert desk.done == []
    assert learner.lessons == []


async def test_the_first_gate_with_a_verdict_decides():
    last = ScriptedGate(Deny("never asked"))
    agent, desk, _ = make([READ, "done"], ScriptedGate(None), ScriptedGate(Approve()), last)
    await collect(agent)
    assert desk.done == [("look", "a.py")]
    assert last.asked == []


async def test_an_edited_call_runs_edited_and_becomes_a_demonstration():
    learner = RecordingLearner()
    agent, desk, _ = make([WRITE, "done"], ScriptedGate(Edit({"at": "b.py"}, "wrong file")), learner=learner)
    await collect(agent)
    assert desk.done == [("change", "b.py")]
    [lesson] = learner.lessons
    assert lesson.demonstration == ToolCall("change", {"at": "b.py"})
    assert lesson.turn.reply.call == ToolCall(*WRITE)
    assert said(agent)[1] == ("assistant", '{"name": "change", "arguments": {"at": "b.py"}}')


async def test_the_gates_before_the_editor_review_the_edited_call():
    strict = ScriptedGate(None, Deny("not b.py"))
    learner = RecordingLearner()
    agent, desk, _ = make([WRITE, "done"], strict, ScriptedGate(Edit({"at": "b.py"})), learner=learner)
    events = await collect(agent)
    assert strict.asked == [ToolCall(*WRITE), ToolCall("change", {"at": "b.py"})]
    assert events[3].verdict == Deny("not b.py")
    assert desk.done == []
    assert learner.lessons == [], "the reason is about the edited call, which the model never made"


async def test_an_edit_into_an_invalid_call_does_not_run():
    agent, desk, _ = make([WRITE, "done"], ScriptedGate(Edit({"to": 3}, name="look")))
    events = await collect(agent)
    assert "the edited call is not valid" in events[3].verdict.reason
    assert desk.done == []


async def test_a_gate_that_breaks_denies_without_teaching():
    class Broken:
        async def review(self, turn, call):
            raise RuntimeError("disk full")

    learner = RecordingLearner()
    agent, desk, _ = make([WRITE, "ok"], Broken(), ScriptedGate(Approve()), learner=learner)
    events = await collect(agent)
    assert events[3].verdict == Deny("Broken failed: RuntimeError: disk full", teach=False)
    assert desk.done == []
    assert learner.lessons == []


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ('{"name": "look"', "not a call"),
        (("lok", {"at": "a"}), "look"),
        (("look", {"to": "a"}), "at"),
    ],
)
async def test_a_reply_that_is_no_valid_call_is_answered_with_what_was_wrong_and_trains_nothing(reply, told):
    learner = RecordingLearner()
    agent, desk, _ = make([reply, READ, "done"], ScriptedGate(Approve()), learner=learner)
    events = await collect(agent)
    assert kinds(events)[2:4] == [Malformed, Thinking]
    assert told in events[2].problem
    assert said(agent)[2] == ("user", events[2].problem)
    assert desk.done == [("look", "a.py")]
    assert learner.lessons == []


async def test_malformed_replies_are_bounded():
    agent, desk, _ = make(["{", "{", "{"], ScriptedGate(Approve()))
    events = await collect(agent)
    assert kinds(events).count(Malformed) == 3
    assert events[-1].reason == "malformed"
    assert desk.done == []


async def test_a_run_that_never_answers_stops_at_its_limit():
    agent, desk, _ = make([READ] * 4, *[ScriptedGate(*[Approve()] * 4)], limits=Limits(turns=4))
    events = await collect(agent)
    assert events[-1].reason == "turn_limit"
    assert len(desk.done) == 4


async def test_lessons_wait_when_nobody_answers_and_go_along_with_the_next():
    learner = RecordingLearner(BackendUnavailableError("gone"))
    agent, _, _ = make([WRITE, "a", WRITE, "b"], ScriptedGate(Deny("one"), Deny("two")), learner=learner)
    events = await collect(agent)
    assert isinstance(events[5], LearnFailed)
    assert [lesson.reason for lesson in agent.pending] == ["one"]
    learner.error = None
    await collect(agent)
    assert [lesson.reason for lesson in learner.lessons] == ["one", "two"]
    assert agent.pending == ()


async def test_a_lesson_that_cannot_be_learned_here_does_not_block_the_next():
    learner = RecordingLearner(BackendError("too long"))
    agent, _, _ = make([WRITE, "a"], ScriptedGate(Deny("one")), learner=learner)
    events = await collect(agent)
    assert events[5].lessons[0].reason == "one"
    assert agent.pending == ()


async def test_a_critic_can_teach_after_the_fact():
    class Sharp:
        async def critique(self, turn, result):
            return f"no: {result.output}"

    learner = RecordingLearner()
    agent, _, _ = make([WRITE, "a"], ScriptedGate(Approve()), critics=[Sharp()], learner=learner)
    await collect(agent)
    assert learner.lessons[0].reason == "no: changed a.py"


async def test_cancelled_while_a_tool_runs_the_conversation_says_so_and_goes_on():
    agent, desk, _ = make([("change", {"at": "slow"}), "hello"], ScriptedGate(Approve()))
    run = asyncio.create_task(collect(agent))
    await desk.busy.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert [role for role, _ in said(agent)] == ["user", "assistant", "tool"]
    assert "interrupted" in said(agent)[-1][1]
    assert (await collect(agent, "again"))[-1] == Stopped("answered", "hello")


async def test_cancelled_while_it_learns_the_step_is_done_whole_and_the_next_run_waits_for_it():
    class Slow(RecordingLearner):
        begun, release = asyncio.Event(), asyncio.Event()

        async def learn(self, lessons):
            self.begun.set()
            await self.release.wait()
            return await super().learn(lessons)

    learner = Slow()
    agent, _, _ = make([WRITE, "hello"], ScriptedGate(Deny("no")), learner=learner)
    run = asyncio.create_task(collect(agent))
    await learner.begun.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    again = asyncio.create_task(collect(agent, "again"))
    await asyncio.sleep(0.01)
    assert not again.done()
    learner.release.set()
    assert (await again)[-1] == Stopped("answered", "hello")
    assert [lesson.reason for lesson in learner.lessons] == ["no"]
    assert agent.pending == ()


async def test_closing_the_iterator_before_the_verdict_is_used_runs_nothing():
    agent, desk, _ = make([WRITE, "hello"], ScriptedGate(Approve()))
    events = agent.run("go")
    async for event in events:
        if isinstance(event, Reviewed):
            break
    await events.aclose()
    assert desk.done == []
    assert (await collect(agent, "again"))[-1] == Stopped("answered", "hello")


async def test_a_backend_that_is_gone_leaves_the_conversation():
    class Gone:
        async def propose(self, conversation):
            raise BackendUnavailableError("nobody answers")

    agent, _, _ = make(["hello"])
    agent.policy, policy = Gone(), agent.policy
    with pytest.raises(BackendUnavailableError):
        await collect(agent, "one")
    agent.policy = policy
    await collect(agent, "two")
    assert said(agent) == [("user", "one"), ("user", "two"), ("assistant", "hello")]


async def test_arguments_cannot_change_between_approval_and_the_call():
    class Sneaky:
        async def review(self, turn, call):
            with pytest.raises(TypeError):
                call.arguments["at"] = "/etc/passwd"
            return Approve()

    agent, desk, _ = make([READ, "done"], Sneaky())
    await collect(agent)
    assert desk.done == [("look", "a.py")]


async def test_observers_see_every_event_and_clear_begins_anew():
    seen = []
    agent, _, _ = make(["hello", "hello"], observers=[seen.append], system="be good")
    events = await collect(agent)
    assert seen == events
    agent.clear()
    assert said(agent) == [("system", "be good")]
    agent.tell("the user undid it")
    await collect(agent)
    assert said(agent)[1:3] == [("user", "the user undid it"), ("user", "go")]


@pytest.mark.parametrize("verdict", [Deny("look first"), Edit({"at": "b.py"}, "wrong file")])
async def test_a_correction_outlives_a_run_that_is_closed_before_it_is_learned(verdict):
    learner = RecordingLearner()
    agent, _, _ = make([WRITE, WRITE, "done"], ScriptedGate(verdict, Deny("second")), learner=learner)
    last = Reviewed if isinstance(verdict, Deny) else ToolReturned
    events = agent.run("go")
    async for event in events:
        if isinstance(event, last):
            break
    await events.aclose()
    assert learner.lessons == []
    await collect(agent, "again")
    assert [lesson.reason for lesson in learner.lessons] == [verdict.reason, "second"]


class Early(RecordingLearner):
    """Its weights are final at once; its report comes when `release` is set."""

    def __init__(self):
        super().__init__()
        self.release = asyncio.Event()

    async def begin(self, lessons):
        async def report():
            await self.release.wait()
            return await self.learn(lessons)

        return report()


async def test_the_retry_is_asked_for_while_what_was_learned_is_still_being_reported():
    learner = Early()
    agent, _, backend = make([WRITE, READ, "done"], ScriptedGate(Deny("no"), Approve()), learner=learner)
    run = asyncio.create_task(collect(agent))
    while len(backend.script) > 1:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert not learner.lessons, "nothing is reported yet, and the second reply is there"
    learner.release.set()
    events = await run
    assert kinds(events)[3:8] == [Reviewed, Learning, Learned, Thinking, Proposed]
    assert said(agent)[-1] == ("assistant", "done")
    assert not backend.script


async def test_a_retry_asked_for_ahead_is_dropped_when_the_conversation_has_changed_meanwhile():
    learner = Early()
    learner.release.set()
    agent, desk, _ = make([WRITE, WRITE, READ, "done"], ScriptedGate(Deny("no"), Approve()), learner=learner)
    async for event in agent.run("go"):
        if isinstance(event, Learned) and not desk.done:
            agent.tell("and look first")
    assert desk.done == [("look", "a.py")], "not what was proposed before that was said"


async def test_a_run_left_while_it_learns_leaves_no_request_behind():
    learner = Early()
    learner.release.set()
    agent, _, _ = make([WRITE], ScriptedGate(Deny("no")), learner=learner)
    proposing = asyncio.Event()

    async def hangs(conversation):
        proposing.set()
        await asyncio.Event().wait()

    async for event in agent.run("go"):
        if isinstance(event, Reviewed):
            agent.policy.propose = hangs
        if isinstance(event, Learned):
            await proposing.wait()
            break
    await asyncio.sleep(0.01)
    assert {task.get_coro().__name__ for task in asyncio.all_tasks()} & {"hangs"} == set()
