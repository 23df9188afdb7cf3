"""The official client over HTTP: the road to hosted Tinker, alignment included."""

import asyncio
import time

import numpy as np
import pytest

from continualcode.backends import TinkerBackend, diagnose
from continualcode.errors import AlignmentError, ConfigError, ContextLengthError
from continualcode.types import Example, Sampling

PROMPT, TOKENS = (3, 1, 4), (1, 5, 9)
IDS_TK = np.array([[1, 7], [5, 2], [9, 0]])
EXAMPLE = Example(PROMPT, TOKENS, IDS_TK, np.array([[0.5, -1.0], [0.0, 2.0], [-0.25, 0.75]]))
EVERYWHERE = Example((0,), tuple(range(1, 24)), np.arange(1, 24)[:, None], np.ones((23, 1)))


@pytest.fixture
def connected(bigram_service, wire_server, official_client):
    """A backend over HTTP, its server, and the service behind: `await connected(quirks=[...])`."""

    async def connect(**kwargs):
        service = bigram_service(**kwargs)
        server = wire_server(service)
        return await TinkerBackend.connect(official_client(server.url), model_name="bigram"), server, service

    return connect


async def test_every_number_over_http_is_the_one_in_process(bigram, connected):
    remote, _, service = await connected()
    local = await TinkerBackend.connect(service, model_name="bigram")
    table = bigram.log_softmax(service.logits)
    own_T = table[[4, 1, 5], TOKENS]
    for backend in (remote, local):
        np.testing.assert_allclose(await backend.sampler.logprobs(PROMPT, TOKENS), own_T, atol=1e-4)
        chosen_TK = await backend.sampler.candidate_logprobs(PROMPT, TOKENS, IDS_TK)
        np.testing.assert_allclose(chosen_TK, np.take_along_axis(table[[4, 1, 5]], IDS_TK, axis=1), atol=1e-4)
        ids_TK, top_TK = await backend.sampler.top_logprobs(PROMPT, TOKENS, 5)
        np.testing.assert_array_equal(ids_TK, np.argsort(-table[[4, 1, 5]])[:, :5])
        np.testing.assert_allclose(top_TK, -np.sort(-table[[4, 1, 5]])[:, :5], atol=1e-4)
        (completion,) = await backend.sampler.sample(PROMPT, Sampling(max_tokens=4, seed=3, candidates=2))
        previous = [4, *completion.tokens[:-1]]
        np.testing.assert_allclose(completion.logprobs_T, table[previous, completion.tokens], atol=1e-4)
        np.testing.assert_array_equal(completion.candidates[0], np.argsort(-table[previous])[:, :2])
    assert remote.capabilities == local.capabilities


async def test_a_step_over_http_makes_the_weights_it_makes_in_process(connected):
    remote, _, service = await connected()
    local = await TinkerBackend.connect(service, model_name="bigram")
    for backend in (remote, local):
        await backend.train_step([EXAMPLE, EXAMPLE], learning_rate=0.1)
        await backend.train_step([EXAMPLE], learning_rate=0.1, refresh=False)
    np.testing.assert_allclose((await remote.forward([EXAMPLE]))[0], (await local.forward([EXAMPLE]))[0], atol=1e-4)
    for backend in (remote, local):
        await backend.refresh()
    for new, old in ((remote.sampler, local.sampler), (remote.initial_sampler, local.initial_sampler)):
        np.testing.assert_allclose(await new.logprobs(PROMPT, TOKENS), await old.logprobs(PROMPT, TOKENS), atol=1e-4)
    np.testing.assert_allclose((await remote.forward([EXAMPLE]))[0], (await local.forward([EXAMPLE]))[0], atol=1e-4)


async def test_a_prompt_has_no_targets_on_the_wire_where_the_server_takes_that(bigram, connected):
    made = []
    for quirks in ([], [bigram.NO_SPARSE]):
        backend, _, service = await connected(quirks=quirks)
        assert backend.capabilities.weighted_candidates
        assert backend.capabilities.notes == ()
        await backend.train_step([EXAMPLE], learning_rate=0.1)
        made.append(await backend.sampler.logprobs(PROMPT, TOKENS))
        assert service.sparse == (not quirks)
    np.testing.assert_array_equal(*made)


async def test_a_step_is_submitted_whole_before_its_first_half_is_done(connected):
    backend, server, _ = await connected()
    server.seen.clear()
    server.never.add("forward_backward")
    step = asyncio.ensure_future(backend.train_step([EXAMPLE], learning_rate=0.1))
    await asyncio.sleep(0.7)
    assert [path for path in server.seen if path in ("forward_backward", "optim_step", "save_weights_for_sampler")] == [
        "forward_backward",
        "optim_step",
        "save_weights_for_sampler",
    ]
    server.never.clear()
    await step


async def test_a_saved_model_goes_on_over_http(connected, official_client):
    backend, server, _ = await connected()
    await backend.train_step([EXAMPLE], learning_rate=0.1)
    path = await backend.save("one")
    again = await TinkerBackend.connect(official_client(server.url), model_name="bigram", load_checkpoint_path=path)
    for trained in (backend, again):
        await trained.train_step([EXAMPLE], learning_rate=0.1)
    np.testing.assert_allclose(
        await again.sampler.logprobs(PROMPT, TOKENS), await backend.sampler.logprobs(PROMPT, TOKENS), atol=1e-6
    )


@pytest.mark.parametrize("quirk", ["NO_LEADING_NONE", "NO_LAST_N"])
async def test_older_servers_are_read_right(bigram, connected, quirk):
    backend, _, service = await connected(quirks=[getattr(bigram, quirk)])
    own_T = bigram.log_softmax(service.logits)[[4, 1, 5], TOKENS]
    np.testing.assert_allclose(await backend.sampler.logprobs(PROMPT, TOKENS), own_T, atol=1e-4)


async def test_a_server_one_position_off_is_refused(bigram, connected):
    with pytest.raises(AlignmentError, match="nats apart"):
        await connected(quirks=[bigram.SHIFTED])


async def test_a_mangling_server_is_announced(bigram, connected):
    backend, _, _ = await connected(quirks=[bigram.MANGLED])
    assert not backend.capabilities.weighted_candidates
    assert backend.capabilities.distillation_topk == 0


async def test_samplers_that_follow_the_weights_are_noticed_at_the_first_step_that_shows_it(bigram, connected):
    backend, _, _ = await connected(quirks=[bigram.LIVE_SAMPLERS])
    assert backend.capabilities.frozen_snapshots, "nothing has been trained that could tell"
    await backend.train_step([EVERYWHERE], learning_rate=1e-6)
    assert backend.capabilities.frozen_snapshots, "too small a step to tell"
    await backend.train_step([EVERYWHERE], learning_rate=5.0)
    assert not backend.capabilities.frozen_snapshots
    assert "follow the newest weights" in backend.capabilities.notes[-1]


async def test_frozen_samplers_are_believed_after_a_step(connected):
    backend, server, _ = await connected()
    await backend.train_step([EVERYWHERE], learning_rate=5.0)
    server.seen.clear()
    await backend.train_step([EVERYWHERE], learning_rate=5.0)
    assert backend.capabilities.frozen_snapshots
    assert "asample" not in server.seen, "known, and not asked again"


async def test_a_refused_key_says_which_variable_to_set(bigram_service, wire_server, official_client):
    server = wire_server(bigram_service())
    server.refuse_keys = True
    with pytest.raises(ConfigError, match=r"refuses the API key .*TINKER_API_KEY"):
        await TinkerBackend.connect(official_client(server.url), model_name="bigram")


async def test_an_unknown_model_names_the_nearest(bigram_service, wire_server, official_client):
    server = wire_server(bigram_service())
    with pytest.raises(ConfigError, match=r"no model 'bigrams': unknown base model bigrams; did you mean 'bigram'\?"):
        await TinkerBackend.connect(official_client(server.url), model_name="bigrams")


async def test_a_bad_checkpoint_is_named(bigram_service, wire_server, official_client):
    server = wire_server(bigram_service())
    with pytest.raises(
        ConfigError, match="checkpoint 'tinker://gone' cannot be loaded: no checkpoint at tinker://gone"
    ):
        await TinkerBackend.connect(
            official_client(server.url), model_name="bigram", load_checkpoint_path="tinker://gone"
        )


async def test_a_context_too_long_for_the_server_is_a_context_length_error(connected):
    backend, server, _ = await connected()
    server.errors["asample"] = "prompt is longer than the maximum context length of 12 tokens"
    with pytest.raises(ContextLengthError, match="maximum context length of 12 tokens; use a shorter"):
        await backend.sampler.sample(PROMPT, Sampling(max_tokens=4))


async def test_waits_overlap(connected):
    backend, server, _ = await connected()
    server.latency = 0.25
    began = time.monotonic()
    await asyncio.gather(*(backend.sampler.logprobs(PROMPT, TOKENS) for _ in range(6)))
    assert time.monotonic() - began < 2.5, "two round trips of latency, not twelve"


async def test_the_doctor_works_over_http(connected):
    backend, server, _ = await connected()
    report = await diagnose(backend)
    assert report.ok
    assert server.url in report.findings[0].detail
