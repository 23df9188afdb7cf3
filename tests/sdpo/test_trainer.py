"""SDPOTrainer on the scripted backend, whose logprobs and gradient steps are a real, tiny model's."""

from dataclasses import replace

import numpy as np
import pytest

from continualcode.errors import BackendError, CapabilityError, ConfigError, ContextLengthError
from continualcode.policy import Policy
from continualcode.sdpo import SDPOConfig, SDPOTrainer, distill_candidates, distill_sampled, teacher_context
from continualcode.testing import FULLY_CAPABLE, VOCABULARY, BytesRenderer, ScriptedBackend, check_backend
from continualcode.types import (
    Capabilities,
    Conversation,
    Example,
    Lesson,
    Message,
    Sampling,
    ToolCall,
    beginning_shared_by,
)

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


async def test_inner_steps_are_rescored_at_the_new_weights_and_make_one_new_sampler():
    backend = ScriptedBackend(["abcdef"])
    lesson = await a_lesson(backend)
    first, weights = backend.sampler, []
    forward = backend.forward

    async def watched(examples):
        assert weights or backend.sampler is first, "no sampler is made between inner steps"
        weights.append(backend._newest)
        return await forward(examples)

    backend.forward = watched
    report = await SDPOTrainer(backend, RENDERER, replace(SAMPLED, max_inner_steps=2, taken_at=0.0)).learn([lesson])
    assert (report.inner_steps, report.step, report.outcome) == (2, 2, "trained")
    completion, between = lesson.turn.completion, weights[0]
    now_T = await between.logprobs(completion.prompt, completion.tokens)
    teacher_T = await first.logprobs(RENDERER.prompt(teacher_context(lesson)), completion.tokens)
    ratio_T = np.minimum(np.exp(now_T - completion.logprobs_T), 2.0)
    np.testing.assert_allclose(backend.steps[1][0].weights_TK[:, 0], ratio_T * (teacher_T - now_T) / report.tokens)
    assert backend.sampler is weights[1]
    np.testing.assert_allclose(
        report.views[0].after_T, await backend.sampler.logprobs(completion.prompt, completion.tokens)
    )


async def test_it_stops_as_soon_as_the_correction_has_taken():
    backend = ScriptedBackend(["write it all anew"], rate=2e5)
    report = await SDPOTrainer(backend, RENDERER, SDPOConfig(max_inner_steps=50, taken_at=0.5)).learn(
        [await a_lesson(backend)]
    )
    assert report.outcome == "taken"
    assert report.left <= 0.5
    assert 1 < report.inner_steps == len(backend.steps) < 50


async def test_it_stops_where_what_was_approved_drifts_too_far():
    backend = ScriptedBackend(["write it all", "write it all"], rate=1e5)
    config = SDPOConfig(max_inner_steps=50, taken_at=0.0, rehearse=2, rehearsal_weight=0.0, drift_budget=1e-3)
    trainer = SDPOTrainer(backend, RENDERER, config)
    trainer.rehearse((await a_lesson(backend)).turn)
    report = await trainer.learn([await a_lesson(backend)])
    assert report.outcome == "drifted"
    assert report.drift > 1e-3
    assert report.inner_steps < 50


async def test_rehearsal_holds_on_to_what_was_approved_and_teaches_nothing_at_the_weights_it_was_kept_at():
    drifts = {}
    for weight in (0.0, 1.0):
        backend = ScriptedBackend(["write it all", "write it too"], rate=1e5)
        config = SDPOConfig(max_inner_steps=6, taken_at=0.0, rehearse=2, rehearsal_weight=weight, drift_budget=99)
        trainer = SDPOTrainer(backend, RENDERER, config)
        trainer.rehearse((await a_lesson(backend)).turn)
        drifts[weight] = (await trainer.learn([await a_lesson(backend)])).drift
        kept = backend.steps[0][1]
        slope_TV = np.abs(await slope_at(backend.initial_sampler, kept))
        assert slope_TV.max() < 1e-12
    assert 0 < drifts[1.0] < drifts[0.0]


async def test_ordinary_replies_are_held_where_the_policy_had_them_before_the_first_lesson():
    backend = ScriptedBackend(["write it all", "write it too"])
    ordinary = [(ASK.add(Message("user", f"question {i}")), Message("assistant", "x" * 40)) for i in range(3)]
    trainer = SDPOTrainer(backend, RENDERER, SDPOConfig(rehearse=2), ordinary=ordinary)
    await trainer.learn([await a_lesson(backend)])
    _, *held = backend.steps[0]
    prompts = {RENDERER.prompt(conversation) for conversation, _ in ordinary}
    assert len(held) == 2
    assert all(example.prompt in prompts and example.tokens == (ord("x"),) * 32 for example in held)


async def slope_at(sampler, example):
    """dLoss/dlogits [T, V] of an example's weighted cross-entropy."""
    _, _, logprobs_TV = sampler.forward(example.prompt, example.tokens)
    slope_TV = np.exp(logprobs_TV) * example.weights_TK.sum(axis=1, keepdims=True)
    np.subtract.at(slope_TV, (np.arange(len(slope_TV))[:, None], example.ids_TK), example.weights_TK)
    return slope_TV


async def test_earlier_lessons_are_rehearsed_towards_what_their_teacher_said():
    backend = ScriptedBackend(["abc", "xyz"])
    trainer = SDPOTrainer(backend, RENDERER, SDPOConfig(rehearse=1))
    first = await a_lesson(backend)
    teacher_prompt = RENDERER.prompt(teacher_context(first))
    await trainer.learn([first])
    await trainer.learn([await a_lesson(backend)])
    again = backend.steps[1][1]
    assert again.tokens == first.turn.completion.tokens
    before = backend.initial_sampler
    told_TK = await before.candidate_logprobs(teacher_prompt, again.tokens, again.ids_TK)
    between = ScriptedBackend(["abc"])
    await SDPOTrainer(between, RENDERER).learn([await a_lesson(between)])
    now_TK = await between.sampler.candidate_logprobs(again.prompt, again.tokens, again.ids_TK)
    np.testing.assert_allclose(again.weights_TK, distill_candidates(now_TK, told_TK, alpha=0.0).weights_TK / 4)


async def test_no_step_is_wasted_on_a_reason_that_changes_nothing_or_on_what_was_unlearned_since():
    backend = ScriptedBackend(["abcdef"], rate=3e5)
    lesson = await a_lesson(backend)
    trainer = SDPOTrainer(backend, RENDERER, SDPOConfig(min_gap=1e6))
    report = await trainer.learn([lesson])
    assert (report.outcome, report.inner_steps, report.step, backend.steps) == ("too weak", 0, 0, [])
    assert report.gap > 0
    np.testing.assert_array_equal(report.views[0].after_T, report.views[0].student_T)
    ids_TK = np.asarray(lesson.turn.completion.tokens)[:, None]
    away = Example(lesson.turn.completion.prompt, lesson.turn.completion.tokens, ids_TK, np.full(ids_TK.shape, -1.0))
    await backend.train_step([away], learning_rate=1e-4)
    assert (await trainer.learn([lesson])).outcome == "understood"


async def test_over_the_whole_vocabulary_the_gradient_is_that_of_the_exact_divergence():
    whole = replace(FULLY_CAPABLE, vocabulary=VOCABULARY)
    backend = ScriptedBackend(["abcab"], capabilities=whole)
    lesson = await a_lesson(backend)
    await SDPOTrainer(backend, RENDERER, SDPOConfig(distillation_topk="all")).learn([lesson])
    [[example]] = backend.steps
    first, completion = backend.initial_sampler, lesson.turn.completion
    p = np.exp(first.forward(completion.prompt, completion.tokens)[2])
    q = np.exp(first.forward(RENDERER.prompt(teacher_context(lesson)), completion.tokens)[2])
    np.testing.assert_allclose(await slope_at(first, example), (p - q) / len(completion.tokens), atol=1e-9)
    with pytest.raises(CapabilityError, match="whole vocabulary"):
        SDPOTrainer(ScriptedBackend(), RENDERER, SDPOConfig(distillation_topk="all"))


async def test_a_siblings_success_is_shown_to_the_others_and_not_to_itself():
    backend = ScriptedBackend(["wrong", "right"])
    failed, solved = await a_lesson(backend, reason=""), await a_lesson(backend, reason="")
    lessons = [replace(failed, reward=0.0), replace(solved, reward=1.0)]
    report = await SDPOTrainer(backend, RENDERER, SAMPLED).learn(lessons)
    [[example]] = backend.steps
    assert example.tokens == failed.turn.completion.tokens, "the success has neither solution nor feedback: masked out"
    shown = RENDERER.prompt(teacher_context(replace(failed, demonstration="right")))
    teacher_T = await backend.initial_sampler.logprobs(shown, example.tokens)
    student_T = await backend.initial_sampler.logprobs(example.prompt, example.tokens)
    np.testing.assert_allclose(example.weights_TK[:, 0], (teacher_T - student_T) / report.tokens)
    own = replace(SAMPLED, dont_reprompt_on_self_success=False)
    assert len((await SDPOTrainer(backend, RENDERER, own).learn(lessons)).views) == 2
    assert await SDPOTrainer(backend, RENDERER, replace(SAMPLED, success_reward_threshold=2.0)).learn(lessons) is None


async def test_rewards_are_centred_within_their_siblings_and_added_to_the_distillation():
    weights = {}
    for name, config in {"grpo": replace(SAMPLED, distillation_weight=0.0, reward_weight=1.0), "sdpo": SAMPLED}.items():
        backend = ScriptedBackend(["aa", "bb", "cc"])
        lessons = [replace(await a_lesson(backend), reward=reward) for reward in (0.0, 0.0, 0.4)]
        report = await SDPOTrainer(backend, RENDERER, config).learn(lessons)
        weights[name] = [example.weights_TK for example in backend.steps[0]]
    for found, advantage in zip(weights["grpo"], (-0.4 / 3, -0.4 / 3, 0.8 / 3), strict=True):
        np.testing.assert_allclose(found, advantage / report.tokens)
    backend = ScriptedBackend(["aa", "bb", "cc"])
    lessons = [replace(await a_lesson(backend), reward=reward) for reward in (0.0, 0.0, 0.4)]
    await SDPOTrainer(backend, RENDERER, replace(SAMPLED, reward_weight=1.0)).learn(lessons)
    for hybrid, grpo, sdpo in zip(backend.steps[0], weights["grpo"], weights["sdpo"], strict=True):
        np.testing.assert_allclose(hybrid.weights_TK, grpo + sdpo)


async def test_a_placebo_equal_to_the_reason_leaves_nothing_to_learn():
    backend = ScriptedBackend(["write it all"])
    lesson = await a_lesson(backend)
    report = await SDPOTrainer(backend, RENDERER, replace(SAMPLED, placebo="use edit_lines")).learn([lesson])
    np.testing.assert_allclose(report.views[0].advantages_T, 0, atol=1e-9)
    told_T = await backend.initial_sampler.logprobs(
        RENDERER.prompt(teacher_context(lesson)), lesson.turn.completion.tokens
    )
    np.testing.assert_allclose(report.views[0].placebo_T, told_T)
    other = await SDPOTrainer(backend, RENDERER, replace(SAMPLED, placebo="the weather is fine")).learn([lesson])
    assert np.abs(other.views[0].advantages_T).max() > 0.1


@pytest.mark.parametrize(("side", "kept"), [("right", "use edit"), ("left", "it_lines")])
async def test_a_reason_that_is_too_long_is_cut_to_what_there_is_room_for(side, kept):
    backend = ScriptedBackend(["abc"])
    lesson = await a_lesson(backend)
    full = RENDERER.prompt(teacher_context(lesson))
    room = len(full) - len(lesson.turn.completion.prompt) - 6
    config = replace(SAMPLED, max_reprompt_len=room, reprompt_truncation=side)
    seen = Seen(backend)
    report = await SDPOTrainer(backend, RENDERER, config, teacher=seen).learn([lesson])
    assert seen.prompts == [RENDERER.prompt(teacher_context(replace(lesson, reason=kept)))]
    assert report.cut == len("use edit_lines") - len(kept)
    with pytest.raises(ContextLengthError, match=f"there is room for {len(full) - 6}"):
        await SDPOTrainer(backend, RENDERER, replace(config, reprompt_truncation="error")).learn([lesson])
    with pytest.raises(ContextLengthError, match="Shorten"):
        await SDPOTrainer(backend, RENDERER, replace(config, max_reprompt_len=1)).learn([lesson])


async def test_the_teachers_prompt_fits_the_models_context():
    backend = ScriptedBackend(["abc"])
    lesson = await a_lesson(backend, reason="no " * 500)
    limit = len(lesson.turn.completion.prompt) + 300
    backend.capabilities = replace(FULLY_CAPABLE, context_length=limit)
    seen = Seen(backend)
    await SDPOTrainer(backend, RENDERER, SAMPLED, teacher=seen).learn([lesson])
    assert len(seen.prompts[0]) + len(lesson.turn.completion.tokens) == limit


class Seen:
    """The newest weights, keeping the prompts they were shown."""

    def __init__(self, backend):
        self.backend, self.prompts = backend, []

    async def score(self, prompt, completion, ids_TK):
        self.prompts.append(prompt)
        return await self.backend.sampler.logprobs(prompt, completion)

    async def update(self):
        pass


async def test_a_teacher_of_older_weights_is_refused_where_samplers_follow_the_newest():
    moving = replace(FULLY_CAPABLE, frozen_snapshots=False)
    for name in ("frozen", "ema", "trust-region"):
        with pytest.raises(CapabilityError, match="use none"):
            SDPOTrainer(ScriptedBackend(capabilities=moving), RENDERER, SDPOConfig(teacher_regularization=name))
    backend = ScriptedBackend(["abc"])
    trainer = SDPOTrainer(backend, RENDERER, SDPOConfig(teacher_regularization="ema"))
    backend.capabilities = moving
    with pytest.raises(CapabilityError, match="follow the newest"):
        await trainer.learn([await a_lesson(backend)])


async def test_a_failure_between_inner_steps_leaves_the_sampler_at_the_weights_there_are():
    backend = ScriptedBackend(["abcdef"])
    lesson = await a_lesson(backend)
    step, taken = backend.train_step, []

    async def failing(examples, **settings):
        if taken:
            raise BackendError("gone")
        taken.append(await step(examples, **settings))
        return taken[0]

    backend.train_step = failing
    with pytest.raises(BackendError, match="gone"):
        await SDPOTrainer(backend, RENDERER, replace(SAMPLED, max_inner_steps=3, taken_at=0.0)).learn([lesson])
    assert backend.sampler is backend._newest is not backend.initial_sampler


@pytest.mark.parametrize(("since_sampled", "again"), [(-1.0, False), (1.0, True)])
async def test_a_denial_alone_may_take_fewer_steps_and_is_trained_on_again_only_where_it_came_up(since_sampled, again):
    backend = ScriptedBackend(["write all"])
    lesson = await a_lesson(backend)
    config = SDPOConfig(max_inner_steps=3, max_denial_steps=1, taken_at=0.0)
    trainer = SDPOTrainer(backend, RENDERER, config)
    assert (await trainer.learn([lesson])).inner_steps == 1
    completion = lesson.turn.completion
    now_T = await backend.sampler.logprobs(completion.prompt, completion.tokens)
    then = replace(completion, logprobs_T=now_T - since_sampled / len(now_T))
    completed = Lesson(
        replace(lesson.turn, completion=then), "use edit_lines", ToolCall("edit_lines", {"path": "a.py"})
    )
    report = await trainer.learn([completed])
    assert report.inner_steps == 3
    rejected, approved = report.views
    expected = [rejected.tokens, approved.tokens] if again else [approved.tokens]
    assert [example.tokens for example in backend.steps[1]] == expected
    assert rejected.tokens == completion.tokens


async def test_what_completes_a_lesson_is_not_rehearsed_beside_itself():
    backend = ScriptedBackend(["write all"])
    lesson = await a_lesson(backend)
    trainer = SDPOTrainer(backend, RENDERER, SDPOConfig(rehearse=2))
    await trainer.learn([lesson])
    await trainer.learn([replace(lesson, demonstration=ToolCall("edit_lines", {"path": "a.py"}))])
    assert len({example.tokens for example in backend.steps[1]}) == len(backend.steps[1])


async def test_the_instructions_are_constant_where_all_that_is_trained_on_begins_with_them():
    backend = ScriptedBackend(["write it all anew", "another one", "a third"])
    config = SDPOConfig(constant_instructions=True, rehearse=2)
    opening = Conversation((Message("system", "Be brief."),))
    policy = Policy(backend, RENDERER, Sampling(candidates=20))
    trainer = SDPOTrainer(backend, RENDERER, config)
    instructions = beginning_shared_by([RENDERER.prompt(opening.add(Message("user", text))) for text in "ab"])
    assert instructions > len("Be brief.")

    turn = await policy.propose(opening.add(Message("user", "fix the test")))
    trainer.rehearse(await policy.propose(opening.add(Message("user", "good morning"))))
    await trainer.learn([Lesson(turn, "use edit_lines")])
    assert [example.constant for example in backend.steps[-1]] == [instructions] * 2

    trainer.rehearse(await policy.propose(ASK))
    await trainer.learn([Lesson(turn, "use edit_lines")])
    assert 0 in [example.constant for example in backend.steps[-1]]


async def test_steps_end_when_what_is_left_is_not_worth_one():
    backend = ScriptedBackend(["write it all anew"])
    lesson = await a_lesson(backend)
    whole = await SDPOTrainer(backend, RENDERER, SDPOConfig(taken_at=0.0, max_inner_steps=3)).learn([lesson])
    assert (whole.outcome, whole.inner_steps) == ("trained", 3)
    backend = ScriptedBackend(["write it all anew"])
    lesson = await a_lesson(backend)
    config = SDPOConfig(taken_at=0.0, max_inner_steps=3, min_gap=0.999 * whole.gap)
    report = await SDPOTrainer(backend, RENDERER, config).learn([lesson])
    assert (report.outcome, report.inner_steps) == ("taken", 1)


class NullSpacedBackend(ScriptedBackend):
    """Notes what it is told to keep clear of, and after how many steps."""

    def __init__(self, *args):
        super().__init__(*args, capabilities=replace(FULLY_CAPABLE, null_space=True))
        self.clear_of = []

    async def into_null_space(self, sequences):
        self.clear_of.append((len(self.steps), list(sequences)))


async def test_before_the_first_step_the_weights_are_drawn_clear_of_ordinary_turns_which_are_not_rehearsed():
    backend, ordinary = NullSpacedBackend(["write all", "again"]), (ASK, Message("assistant", "good morning"))
    config = SDPOConfig(null_space=True, rehearse=2)
    trainer = SDPOTrainer(backend, RENDERER, config, ordinary=[ordinary])
    await trainer.learn([await a_lesson(backend)])
    await trainer.learn([await a_lesson(backend)])
    expected = RENDERER.prompt(ASK) + RENDERER.completion(ordinary[1])
    assert backend.clear_of == [(0, [expected])]
    assert [example.tokens for example in backend.steps[0]] == [(*b"write all", RENDERER.stop[0])]


async def test_a_backend_without_a_null_space_is_told_at_construction():
    with pytest.raises(CapabilityError, match="null_space=False"):
        SDPOTrainer(ScriptedBackend(["x"]), RENDERER, SDPOConfig(null_space=True))
