import asyncio
import functools
from types import SimpleNamespace

import numpy as np
import pytest

from continualcode.backends import TinkerBackend, TinkerSampler
from continualcode.errors import AlignmentError, CapabilityError, ContextLengthError
from continualcode.types import Sampling

PROMPT = (3, 1, 4)
COMPLETION = (1, 5, 9, 2)


@pytest.fixture
def truth(bigram):
    """log p(next | previous) of a service's initial weights, as a table."""
    return lambda service: bigram.log_softmax(service.logits)


def along(table, prompt, completion):
    return np.array([table[a, b] for a, b in zip((prompt + completion)[len(prompt) - 1 :], completion, strict=False)])


@pytest.mark.parametrize("futures", ["awaitable", "concurrent", "blocking"])
async def test_logprobs_belong_to_the_completions_own_tokens(bigram_service, truth, futures):
    service = bigram_service(futures=futures)
    backend = await TinkerBackend.connect(service, model_name="bigram")
    logprobs_T = await backend.sampler.logprobs(PROMPT, COMPLETION)
    np.testing.assert_allclose(logprobs_T, along(truth(service), PROMPT, COMPLETION), atol=1e-12)


async def test_a_server_without_the_leading_none_is_told_by_the_length(bigram, bigram_service, truth):
    service = bigram_service(quirks=[bigram.NO_LEADING_NONE])
    backend = await TinkerBackend.connect(service, model_name="bigram")
    logprobs_T = await backend.sampler.logprobs(PROMPT, COMPLETION)
    np.testing.assert_allclose(logprobs_T, along(truth(service), PROMPT, COMPLETION), atol=1e-12)
    ids_TK, logprobs_TK = await backend.sampler.top_logprobs(PROMPT, COMPLETION, 3)
    table = truth(service)[[PROMPT[-1], *COMPLETION[:-1]]]
    np.testing.assert_array_equal(ids_TK, np.argsort(-table)[:, :3])
    np.testing.assert_allclose(logprobs_TK, -np.sort(-table)[:, :3], atol=1e-12)


@pytest.mark.parametrize("quirk", ["SHIFTED", "SHORT", "NOT_A_NUMBER"])
async def test_logprobs_that_do_not_line_up_are_refused_at_connect(bigram, bigram_service, quirk):
    with pytest.raises(AlignmentError, match=r"expected|nats apart|no logprob"):
        await TinkerBackend.connect(bigram_service(quirks=[getattr(bigram, quirk)]), model_name="bigram")


@pytest.mark.parametrize("spread", [2.0, 0.2])
async def test_a_shift_by_one_is_seen_by_scoring_again_what_was_sampled(bigram, bigram_service, spread):
    service = bigram_service(quirks=[bigram.SHIFTED], spread=spread)
    with pytest.raises(AlignmentError, match=r"samples tokens .* nats apart"):
        await TinkerBackend.connect(service, model_name="bigram")


@pytest.mark.parametrize("spread", [2.0, 0.2])
async def test_a_trainer_one_position_off_its_own_sampler_is_refused(bigram, bigram_service, spread):
    service = bigram_service(quirks=[bigram.TRAINER_SHIFTED], spread=spread)
    with pytest.raises(AlignmentError, match="one of them is a position off"):
        await TinkerBackend.connect(service, model_name="bigram")


@pytest.mark.parametrize(("length", "fits"), [(5, False), (6, True), (7, True), (8, False)])
async def test_only_n_or_n_minus_one_logprobs_fit_n_tokens(length, fits):
    client = SimpleNamespace(
        sample=lambda prompt, num_samples, sampling_params: None,
        compute_logprobs=lambda prompt: [None, *(-float(place) for place in range(1, length))],
    )
    sampler = TinkerSampler(client)
    if fits:
        assert list(await sampler.logprobs(PROMPT, COMPLETION)) == [-float(p) for p in range(length - 4, length)]
    else:
        with pytest.raises(AlignmentError, match=rf"{length} logprobs for 3 \+ 4 tokens"):
            await sampler.logprobs(PROMPT, COMPLETION)


@pytest.mark.parametrize("wrong", [None, float("nan"), float("-inf"), 0.5])
async def test_what_is_no_logprob_is_refused_with_its_place(wrong):
    client = SimpleNamespace(
        sample=lambda prompt, num_samples, sampling_params: None,
        compute_logprobs=lambda prompt: [None, -1.0, -1.0, -1.0, -1.0, wrong, -1.0],
    )
    with pytest.raises(AlignmentError, match="position 2 of"):
        await TinkerSampler(client).logprobs(PROMPT, COMPLETION)


async def test_a_sample_carries_its_tokens_logprobs_candidates_and_origin(bigram_service, truth):
    service = bigram_service()
    backend = await TinkerBackend.connect(service, model_name="bigram")
    sampling = Sampling(max_tokens=6, candidates=4, seed=5)
    first, second = await backend.sampler.sample(PROMPT, sampling, n=2)
    assert first.prompt == PROMPT
    assert first.origin is backend.sampler
    assert first.tokens == second.tokens, "one seed, one completion"
    np.testing.assert_allclose(first.logprobs_T, along(truth(service), PROMPT, first.tokens), atol=1e-12)
    ids_TK, logprobs_TK = first.candidates
    previous = [PROMPT[-1], *first.tokens[:-1]]
    np.testing.assert_array_equal(ids_TK, np.argsort(-truth(service)[previous])[:, :4])
    np.testing.assert_allclose(logprobs_TK, np.take_along_axis(truth(service)[previous], ids_TK, axis=1), atol=1e-12)


async def test_temperature_is_kept_and_logprobs_stay_untempered(bigram_service, truth):
    service = bigram_service()
    backend = await TinkerBackend.connect(service, model_name="bigram")
    (completion,) = await backend.sampler.sample(PROMPT, Sampling(max_tokens=5, temperature=0.5))
    assert completion.temperature == 0.5
    np.testing.assert_allclose(completion.logprobs_T, along(truth(service), PROMPT, completion.tokens), atol=1e-12)


async def test_a_stop_token_ends_the_completion_and_is_part_of_it(bigram_service):
    backend = await TinkerBackend.connect(bigram_service(), model_name="bigram")
    every = tuple(range(24))
    (completion,) = await backend.sampler.sample(PROMPT, Sampling(max_tokens=5, stop=every))
    assert (len(completion.tokens), completion.stop_reason) == (1, "stop")
    (completion,) = await backend.sampler.sample(PROMPT, Sampling(max_tokens=5))
    assert (len(completion.tokens), completion.stop_reason) == (5, "length")


@pytest.mark.parametrize("sent", [[-1.0], [-1.0, -2.0, -3.0], None])
async def test_sampled_logprobs_must_be_as_many_as_the_tokens(sent):
    sequence = SimpleNamespace(tokens=[5, 6], logprobs=sent, stop_reason="stop", topk_logprobs=None)
    client = SimpleNamespace(sample=lambda **_: SimpleNamespace(sequences=[sequence]))
    with pytest.raises(AlignmentError):
        await TinkerSampler(client).sample(PROMPT, Sampling())


async def test_a_service_that_cuts_the_stop_token_off_gives_a_completion_without_it():
    sequence = SimpleNamespace(tokens=[5], logprobs=[-1.5], stop_reason="stop", topk_logprobs=None)
    client = SimpleNamespace(sample=lambda **_: SimpleNamespace(sequences=[sequence]))
    (completion,) = await TinkerSampler(client).sample(PROMPT, Sampling(stop=(7,)))
    assert completion.tokens == (5,)
    assert list(completion.logprobs_T) == [-1.5]


@pytest.mark.parametrize("prompt", [(3,), (3, 1, 4), tuple(range(20)) * 2])
async def test_chosen_tokens_are_scored_at_their_own_positions(bigram_service, truth, prompt):
    service = bigram_service()
    backend = await TinkerBackend.connect(service, model_name="bigram")
    ids_TK = np.array([[5, 5, 0], [1, 2, 3], [23, 0, 9], [7, 8, 9]])
    logprobs_TK = await backend.sampler.candidate_logprobs(prompt, COMPLETION, ids_TK)
    table = truth(service)[[prompt[-1], *COMPLETION[:-1]]]
    np.testing.assert_allclose(logprobs_TK, np.take_along_axis(table, ids_TK, axis=1), atol=1e-6)


async def test_what_a_server_cannot_do_is_announced_and_refused(bigram, bigram_service):
    service = bigram_service(quirks=[bigram.NO_CANDIDATES, bigram.NO_TARGETS, bigram.MANGLED])
    backend = await TinkerBackend.connect(service, model_name="bigram")
    known = backend.capabilities
    assert (known.sample_candidates, known.top_logprobs, known.distillation_topk) == (0, 0, 0)
    assert not known.candidate_logprobs
    assert not known.weighted_candidates
    (completion,) = await backend.sampler.sample(PROMPT, Sampling(max_tokens=3, candidates=5))
    assert completion.candidates is None
    with pytest.raises(CapabilityError, match="chosen tokens"):
        await backend.sampler.candidate_logprobs(PROMPT, COMPLETION, np.zeros((4, 2), np.int64))
    with pytest.raises(CapabilityError, match="2 most likely"):
        await backend.sampler.top_logprobs(PROMPT, COMPLETION, 2)


async def test_numbers_of_other_positions_are_not_used(bigram, bigram_service):
    service = bigram_service(quirks=[bigram.TARGETS_SHIFTED, bigram.TRANSPOSED])
    known = (await TinkerBackend.connect(service, model_name="bigram")).capabilities
    assert not known.candidate_logprobs
    assert not known.weighted_candidates
    assert all("not used" in note for note in known.notes)
    assert len(known.notes) == 2


async def test_targets_answered_in_another_order_are_told_without_a_loss_to_check(bigram, bigram_service):
    service = bigram_service(quirks=[bigram.TRANSPOSED, bigram.SILENT_LOSS])
    assert not (await TinkerBackend.connect(service, model_name="bigram")).capabilities.weighted_candidates


async def test_a_capable_server_is_announced_as_such(bigram_service):
    backend = await TinkerBackend.connect(bigram_service(), model_name="bigram")
    known = backend.capabilities
    assert (known.sample_candidates, known.top_logprobs, known.distillation_topk) == (24, 24, 24)
    assert (known.context_length, known.notes) == (64, ())
    assert known.summed_cross_entropy


async def test_a_capable_server_is_probed_with_five_requests(bigram, bigram_service, monkeypatch):
    service, asked = bigram_service(), []
    for name in ("sample", "compute_logprobs"):
        method = getattr(bigram.BigramSampling, name)
        monkeypatch.setattr(bigram.BigramSampling, name, functools.wraps(method)(_noting(asked, name, method)))
    await TinkerBackend.connect(service, model_name="bigram")
    assert sorted([*asked, *service.log]) == [
        *("compute_logprobs", "compute_logprobs", "forward", "forward", "sample", "save_weights")
    ]


def _noting(asked, name, method):
    def noting(*args, **kwargs):
        asked.append(name)
        return method(*args, **kwargs)

    return noting


@pytest.mark.parametrize("answer", ["refused", "of other weights"])
async def test_a_server_that_cannot_answer_all_at_once_is_asked_one_by_one(bigram, bigram_service, monkeypatch, answer):
    method = bigram.BigramSampling.sample

    @functools.wraps(method)
    def sample(self, *args, **kwargs):
        if {"topk_prompt_logprobs", "topk_sample_logprobs"} <= kwargs.keys():
            if answer == "refused":
                raise ValueError("one thing at a time, please")
            return method(bigram.BigramSampling(self.service, self.logits * 0.5), *args, **kwargs)
        return method(self, *args, **kwargs)

    monkeypatch.setattr(bigram.BigramSampling, "sample", sample)
    known = (await TinkerBackend.connect(bigram_service(), model_name="bigram")).capabilities
    assert (known.sample_candidates, known.top_logprobs, known.distillation_topk) == (24, 24, 24)
    assert (known.candidate_logprobs, known.notes) == (True, ())


async def test_an_sdk_without_the_arguments_is_told_by_its_signatures(bigram_service):
    training = await bigram_service().create_lora_training_client("bigram")
    inner = await training.save_weights_and_get_sampling_client()

    class Old:
        def sample(self, prompt, num_samples, sampling_params, include_prompt_logprobs=False):
            return inner.sample(prompt, num_samples, sampling_params, include_prompt_logprobs)

        def compute_logprobs(self, prompt):
            return inner.compute_logprobs(prompt)

    sampler = TinkerSampler(Old())
    (completion,) = await sampler.sample(PROMPT, Sampling(max_tokens=3, candidates=5))
    assert completion.candidates is None
    np.testing.assert_allclose(await sampler.logprobs(PROMPT, completion.tokens), completion.logprobs_T)
    with pytest.raises(CapabilityError):
        await sampler.top_logprobs(PROMPT, COMPLETION, 2)
    with pytest.raises(CapabilityError):
        await sampler.candidate_logprobs(PROMPT, COMPLETION, np.zeros((4, 2), np.int64))


async def test_a_prompt_that_does_not_fit_is_refused_before_it_is_sent(bigram_service):
    backend = await TinkerBackend.connect(bigram_service(context=16), model_name="bigram")
    with pytest.raises(ContextLengthError, match="3 tokens and 14 more do not fit the model's context of 16"):
        await backend.sampler.sample(PROMPT, Sampling(max_tokens=14))
    assert len((await backend.sampler.sample(PROMPT, Sampling(max_tokens=13)))[0].tokens) == 13


async def test_a_context_the_service_kept_to_itself_is_recognised_in_its_refusal(bigram_service):
    service = bigram_service(context=16)
    service.get_server_capabilities = lambda: SimpleNamespace(supported_models=[])
    backend = await TinkerBackend.connect(service, model_name="bigram")
    assert backend.capabilities.context_length is None
    with pytest.raises(ContextLengthError, match="maximum context length is 16"):
        await backend.sampler.sample(PROMPT, Sampling(max_tokens=14))


async def test_nothing_is_asked_for_an_empty_completion(bigram_service):
    backend = await TinkerBackend.connect(bigram_service(), model_name="bigram")
    assert (await backend.sampler.logprobs(PROMPT, ())).shape == (0,)
    assert (await backend.sampler.candidate_logprobs(PROMPT, (), np.zeros((0, 3), np.int64))).shape == (0, 3)
    ids_TK, logprobs_TK = await backend.sampler.top_logprobs(PROMPT, (), 2)
    assert ids_TK.shape == logprobs_TK.shape == (0, 2)


async def test_calls_may_run_together(bigram_service, truth):
    service = bigram_service()
    backend = await TinkerBackend.connect(service, model_name="bigram")
    completions = [(place, place + 1) for place in range(8)]
    results = await asyncio.gather(*(backend.sampler.logprobs(PROMPT, completion) for completion in completions))
    for completion, logprobs_T in zip(completions, results, strict=True):
        np.testing.assert_allclose(logprobs_T, along(truth(service), PROMPT, completion), atol=1e-12)
