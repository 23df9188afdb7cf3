import pytest

from continualcode.errors import ConfigError
from continualcode.policy import Policy
from continualcode.testing import END, BytesRenderer, ScriptedBackend
from continualcode.types import Conversation, Message, Sampling, ToolCall

ASK = Conversation((Message("user", "go"),))


async def test_a_turn_carries_the_exact_tokens_their_logprobs_and_what_they_were_sampled_from():
    backend = ScriptedBackend([("read", {"path": "a"})])
    turn = await Policy(backend, BytesRenderer(), Sampling(candidates=3)).propose(ASK)
    completion = turn.completion
    assert turn.context is ASK
    assert turn.reply.call == ToolCall("read", {"path": "a"})
    assert completion.prompt == BytesRenderer().prompt(ASK)
    assert bytes(completion.tokens[:-1]).decode() == turn.reply.raw
    assert completion.tokens[-1] == END
    assert completion.logprobs_T.shape == (len(completion.tokens),)
    assert completion.candidates[0].shape == (len(completion.tokens), 3)
    assert completion.origin is backend.sampler


async def test_many_proposals_come_in_one_request():
    turns = await Policy(ScriptedBackend(["a", "b", "c"]), BytesRenderer()).propose_many(ASK, 3)
    assert [turn.reply.text for turn in turns] == ["a", "b", "c"]


async def test_a_reply_cut_off_is_a_problem_and_not_an_answer():
    turn = await Policy(ScriptedBackend(["a long answer"]), BytesRenderer(), Sampling(max_tokens=4)).propose(ASK)
    assert turn.reply.problem == "Your reply was cut off after 4 tokens. Write a shorter one."


async def test_the_newest_weights_are_asked():
    backend = ScriptedBackend(["a"])
    policy = Policy(backend, BytesRenderer())
    backend.sampler = ScriptedBackend(["from new weights"]).sampler
    assert (await policy.propose(ASK)).reply.text == "from new weights"


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}])
def test_sampling_that_cannot_work_is_refused(wrong):
    with pytest.raises(ConfigError):
        Policy(ScriptedBackend(), BytesRenderer(), Sampling(**wrong))


async def test_with_a_seed_every_proposal_is_another_draw_and_the_series_repeats():
    class Seeds:
        def __init__(self):
            self.seen = []
            self.sampler = self

        async def sample(self, prompt, sampling, n=1):
            self.seen.append(sampling.seed)
            return await ScriptedBackend(["a"]).sampler.sample(prompt, sampling, n)

    first, second = Seeds(), Seeds()
    for seeds in (first, second):
        policy = Policy(seeds, BytesRenderer(), Sampling(seed=7))
        for _ in range(3):
            await policy.propose(ASK)
    assert first.seen == second.seen == [7, 8, 9]
