"""Batched, around a learner that records and around SDPOTrainer on the scripted backend."""

import asyncio

import numpy as np
import pytest

from continualcode.errors import BackendError, ConfigError
from continualcode.policy import Policy
from continualcode.protocols import Rehearser
from continualcode.sdpo import Batched, SDPOConfig, SDPOTrainer
from continualcode.testing import BytesRenderer, RecordingLearner, ScriptedBackend
from continualcode.types import Conversation, Lesson, Message, Sampling

RENDERER = BytesRenderer()


async def lessons_on(backend, *reasons):
    policy = Policy(backend, RENDERER, Sampling(candidates=20))
    ask = Conversation((Message("user", "hi"),))
    return [Lesson(await policy.propose(ask), reason) for reason in reasons]


async def test_lessons_of_several_calls_are_one_step_as_if_they_had_come_together():
    steps = {}
    for size in (1, 3):
        backend = ScriptedBackend(["abcdef", "xy", "hello"])
        lessons = await lessons_on(backend, "one", "two", "three")
        trainer = SDPOTrainer(backend, RENDERER, SDPOConfig())
        if size == 1:
            await trainer.learn(lessons)
        else:
            batched = Batched(trainer, size)
            assert [await batched.learn([lesson]) for lesson in lessons[:2]] == [None, None]
            assert not backend.steps
            assert (await batched.learn(lessons[2:])).lessons == 3
        [steps[size]] = backend.steps
    for together, batched in zip(steps[1], steps[3], strict=True):
        np.testing.assert_allclose(batched.weights_TK, together.weights_TK)


async def test_a_call_with_more_than_a_batch_is_not_split():
    inner = RecordingLearner()
    batched = Batched(inner, 2)
    assert (await batched.learn(await lessons_on(ScriptedBackend("abc"), "1", "2", "3"))).lessons == 3
    assert batched.collected == ()


async def test_the_rest_is_learned_from_when_flushed_and_once_only():
    inner = RecordingLearner()
    batched = Batched(inner, 4)
    lessons = await lessons_on(ScriptedBackend("abc"), "1", "2", "3")
    assert await batched.learn(lessons) is None
    assert (await batched.flush()).lessons == 3
    assert await batched.flush() is None
    assert inner.lessons == lessons


async def test_lessons_stay_collected_when_the_learner_within_fails():
    inner = RecordingLearner(BackendError("the line is dead"))
    batched = Batched(inner, 2)
    lessons = await lessons_on(ScriptedBackend("abc"), "1", "2", "3")
    with pytest.raises(BackendError):
        await batched.learn(lessons[:2])
    inner.error = None
    assert (await batched.learn(lessons[2:])).lessons == 3
    assert inner.lessons == lessons


async def test_what_arrives_during_a_step_is_kept_for_the_next():
    first, second, third = await lessons_on(ScriptedBackend("abc"), "1", "2", "3")
    entered, leave, inner = asyncio.Event(), asyncio.Event(), RecordingLearner()

    class Slow:
        async def learn(self, lessons):
            entered.set()
            await leave.wait()
            return await inner.learn(lessons)

    batched = Batched(Slow(), 2)
    step = asyncio.create_task(batched.learn([first, second]))
    await entered.wait()
    late = asyncio.create_task(batched.learn([third]))
    await asyncio.sleep(0)
    leave.set()
    assert (await step).lessons == 2
    assert await late is None
    assert inner.lessons == [first, second]
    assert batched.collected == (third,)


async def test_approved_turns_are_passed_on_to_a_learner_that_rehearses():
    approved = []

    class Rehearsing(RecordingLearner):
        def rehearse(self, turn):
            approved.append(turn)

    [lesson] = await lessons_on(ScriptedBackend(["a"]), "1")
    batched = Batched(Rehearsing(), 2)
    assert isinstance(batched, Rehearser)
    batched.rehearse(lesson.turn)
    Batched(RecordingLearner(), 2).rehearse(lesson.turn)
    assert approved == [lesson.turn]


def test_a_batch_of_none_is_refused():
    with pytest.raises(ConfigError, match="1 lesson or more, not 0"):
        Batched(RecordingLearner(), 0)
