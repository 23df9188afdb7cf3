"""SDPOTrainer on the scripted backend, whose logprobs and gradient steps are a real, tiny model's."""

from dataclasses import replace

import numpy as np
import pytest

from continualcode.errors import CapabilityError, ConfigError
from continualcode.policy import Policy
from continualcode.sdpo import SDPOConfig, SDPOTrainer, distill_candidates, distill_sampled, teacher_context
from continualcode.testing import BytesRenderer, ScriptedBackend, check_backend
from continualcode.types import Capabilities, Conversation, Example, Lesson, Message, Sampling, ToolCall

RENDERER = BytesRenderer()
ASK = Conversation((Message("user", "fix the test"),))
SAMPLED = SDPOConfig(distillation_topk=None, alpha=1.0)


async def a_lesson(backend, candidates=20, reason="use edit_lines", temperature=1.0):
    policy = Policy(backend, RENDERER, Sampling(candidates=candidates, temperature=temperature))
    return Lesson(await policy.propose(ASK), reason)


async def test_the_scripted_backend_is_a_backend():
    await check_backend(ScriptedBackend(["hello"]), (1, 2, 3), (4, 5, 6))


@pytest.mark.parametrize("config", [SAMPLED, SDPOConfig(alpha=0.0), SDPOConfig(), SDPOConfig(alpha=1.0)])
async def test_a_step_moves_the_student_towards_the_teacher(config):
    backend = ScriptedBackend(["write it all anew"])
    lesson = await a_lesson(backend)
    tokens, prompt = lesson.turn.completion.tokens, lesson.turn.completion.prompt
    ids_TK, _ = await backend.sampler.top_logprobs(prompt, tokens, 20)
    teacher_prompt = RENDERER.prompt(teacher_context(lesson))
    q = np.exp(await backend.sampler.candidate_logprobs(teacher_prompt, tokens, ids_TK))
    before = np.exp(await backend.sampler.candidate_logprobs(prompt, tokens, ids_TK))
    report = await SDPOTrainer(backend, RENDERER, config).learn([lesson])
    after = np.exp(await backend.sampler.candidate_logprobs(prompt, tokens, ids_TK))
    assert report.tokens == len(tokens)
    assert report.step == 1
    if config is SAMPLED:
        up_T = report.views[0].advantages_T
        moved_T = report.views[0].after_T - report.views[0].student_T
        assert np.corrcoef(up_T, moved_T)[0, 1] > 0.8
    else:
        assert np.abs(after - q).sum() < np.abs(before - q).sum()


async def test_weights_are_those_of_the_formula_at_the_right_tokens():
    backend = ScriptedBackend(["abcab"])
    lesson = await a_lesson(backend)
    completion, sampler = lesson.turn.completion, backend.sampler
    await SDPOTrainer(backend, RENDERER, SDPOConfig(alpha=0.3)).learn([lesson])
    ids_TK, _ = await sampler.top_logprobs(completion.prompt, completion.tokens, 20)
    for row, token in zip(ids_TK, completion.tokens, strict=True):
        if token not in row:
            row[-1] = token
    student_TK = await sampler.candidate_logprobs(completion.prompt, completion.tokens, ids_TK)
    teacher_prompt = RENDERER.prompt(teacher_context(lesson))
    teacher_TK = await sampler.candidate_logprobs(teacher_prompt, completion.tokens, ids_TK)
    expected = distill_candidates(student_TK, teacher_TK, alpha=0.3).weights_TK / len(completion.tokens)
    [[example]] = backend.steps
    assert example.prompt == completion.prompt
    assert example.tokens == completion.tokens
    np.testing.assert_array_equal(example.ids_TK, ids_TK)
    np.testing.assert_allclose(example.weights_TK, expected)


async def test_an_alignment_off_by_one_would_not_pass_unseen():
    backend = ScriptedBackend(["abcab"])
    lesson = await a_lesson(backend)
    completion, sampler = lesson.turn.completion, backend.sampler
    await SDPOTrainer(backend, RENDERER, SAMPLED).learn([lesson])
    teacher_prompt = RENDERER.prompt(teacher_context(lesson))
    teacher_T = await sampler.logprobs(teacher_prompt, completion.tokens)
    [[example]] = backend.steps
    right = distill_sampled(completion.logprobs_T, teacher_T).weights_TK / len(completion.tokens)
    shifted = distill_sampled(completion.logprobs_T, np.roll(teacher_T, 1)).weights_TK / len(completion.tokens)
    np.testing.assert_allclose(example.weights_TK, right)
    assert np.abs(example.weights_TK - shifted).max() > 0.1


async def test_when_prompt_and_weights_are_the_same_the_advantage_is_zero_at_every_token():
    backend = ScriptedBackend(["write it all anew"])
    lesson = await a_lesson(backend)
    trainer = SDPOTrainer(backend, RENDERER, SAMPLED, teacher=Echo(backend, lesson.turn.completion.prompt))
    report = await trainer.learn([lesson])
    np.testing.assert_allclose(report.views[0].advantages_T, 0, atol=1e-12)


class Echo:
    """A teacher that is shown the student's own prompt."""

    def __init__(self, backend, prompt):
        self.backend, self.prompt = backend, prompt

    async def score(self, prompt, completion, ids_TK):
        return await self.backend.sampler.logprobs(self.prompt, completion)

    async def update(self):
        pass


async def test_several_lessons_are_one_step_averaged_over_all_their_tokens():
    backend = ScriptedBackend(["abcdef", "xy"])
    lessons = [await a_lesson(backend, reason="one"), await a_lesson(backend, reason="two")]
    report = await SDPOTrainer(backend, RENDERER, SAMPLED).learn(lessons)
    assert (report.lessons, report.tokens, len(backend.steps)) == (2, 7 + 3, 1)
    for example, view in zip(backend.steps[0], report.views, strict=True):
        np.testing.assert_allclose(example.weights_TK[:, 0], view.advantages_T / 10)


async def test_a_lesson_from_older_weights_is_scored_at_the_newest_and_importance_weighted():
    weights = {}
    for clip in (None, 1.5):
        backend = ScriptedBackend(["abcdef", "abcdef"])
        old, same = await a_lesson(backend), await a_lesson(backend, reason="not this")
        trainer = SDPOTrainer(backend, RENDERER, replace(SAMPLED, is_clip=clip))
        await trainer.learn([same])
        now_T = await backend.sampler.logprobs(old.turn.completion.prompt, old.turn.completion.tokens)
        report = await trainer.learn([old])
        np.testing.assert_allclose(report.views[0].student_T, now_T)
        weights[clip] = backend.steps[-1][0].weights_TK[:, 0]
    ratio_T = np.minimum(np.exp(now_T - old.turn.completion.logprobs_T), 1.5)
    assert ratio_T.min() < 0.9
    np.testing.assert_allclose(weights[1.5], weights[None] * ratio_T)


async def test_an_approved_retry_is_distilled_into_the_context_of_the_denied_turn():
    backend = ScriptedBackend(["write all", "edit one"])
    lesson = await a_lesson(backend)
    policy = Policy(backend, RENDERER, Sampling(candidates=20))
    retry = await policy.propose(lesson.turn.context.add(Message("tool", "denied: use edit_lines")))
    report = await SDPOTrainer(backend, RENDERER, replace(SAMPLED)).learn([replace(lesson, resolution=retry)])
    rejected, approved = backend.steps[0]
    assert rejected.prompt == approved.prompt == lesson.turn.completion.prompt
    assert approved.tokens == retry.completion.tokens
    teacher_T = await backend.initial_sampler.logprobs(RENDERER.prompt(teacher_context(lesson)), approved.tokens)
    student_T = await backend.initial_sampler.logprobs(approved.prompt, approved.tokens)
    np.testing.assert_allclose(approved.weights_TK[:, 0], (teacher_T - student_T) / report.tokens)
    assert [view.kind for view in report.views] == ["rejected", "approved"]
    assert report.lessons == 1


async def test_an_edited_call_is_distilled_as_the_model_would_have_written_it():
    backend = ScriptedBackend(["write all"])
    call = ToolCall("edit_lines", {"path": "a.py"})
    lesson = replace(await a_lesson(backend, reason=""), demonstration=call)
    await SDPOTrainer(backend, RENDERER, SAMPLED).learn([lesson])
    _, approved = backend.steps[0]
    assert approved.tokens == RENDERER.completion(Message("assistant", "", calls=(call,)))


async def test_a_completion_not_sampled_at_temperature_one_is_refused():
    backend = ScriptedBackend(["abc"])
    with pytest.raises(ConfigError, match=r"temperature 0.7"):
        await SDPOTrainer(backend, RENDERER).learn([await a_lesson(backend, temperature=0.7)])
    assert backend.steps == []


async def test_a_denial_without_a_reason_trains_nothing():
    backend = ScriptedBackend(["abc"])
    assert await SDPOTrainer(backend, RENDERER).learn([await a_lesson(backend, reason="")]) is None
    assert backend.steps == []


@pytest.mark.parametrize(("name", "moves"), [("none", True), ("frozen", False)])
async def test_the_frozen_teacher_keeps_the_first_weights_and_the_current_one_follows(name, moves):
    backend = ScriptedBackend(["abc", "abc"])
    trainer = SDPOTrainer(backend, RENDERER, replace(SAMPLED, teacher_regularization=name))
    lesson = await a_lesson(backend)
    prompt, tokens = RENDERER.prompt(teacher_context(lesson)), lesson.turn.completion.tokens
    before_T = await trainer.teacher.score(prompt, tokens, None)
    await backend.train_step([all_up(prompt, tokens)], learning_rate=1e-4)
    after_T = await trainer.teacher.score(prompt, tokens, None)
    assert bool(np.abs(after_T - before_T).max() > 0.1) is moves


def all_up(prompt, tokens):
    return Example(prompt, tokens, np.array(tokens)[:, None], np.ones((len(tokens), 1)))


async def test_what_a_backend_cannot_do_is_said_at_construction():
    bare = Capabilities()
    with pytest.raises(CapabilityError, match="distillation_topk=None and alpha=1"):
        SDPOTrainer(ScriptedBackend(capabilities=bare), RENDERER, SDPOConfig(alpha=0.5))
    announced = SDPOTrainer(ScriptedBackend(capabilities=bare), RENDERER, SDPOConfig(alpha=1.0))
    assert announced.topk == 0
    assert "sampled token alone" in announced.notes[0]
    few = replace(bare, candidate_logprobs=True, weighted_candidates=True, top_logprobs=5)
    capped = SDPOTrainer(ScriptedBackend(capabilities=few), RENDERER)
    assert capped.topk == 5
    assert "5 candidates" in capped.notes[0]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"alpha": 2.0}, "alpha must lie in"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
        ({"distillation_topk": 0}, "distillation_topk must be at least 1"),
        ({"is_clip": 0.0}, "is_clip must be > 0"),
        ({"teacher_update_rate": 1.5}, "teacher_update_rate must lie in"),
    ],
)
def test_values_that_cannot_work_are_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        SDPOConfig(**values)


def test_an_unknown_teacher_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match="no teacher 'emma'; there are: ema, frozen, none, trust-region"):
        SDPOTrainer(ScriptedBackend(), RENDERER, SDPOConfig(teacher_regularization="emma"))
