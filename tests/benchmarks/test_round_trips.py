"""A correction over the network waits for no more requests than depend on one another."""

import importlib
from pathlib import Path

import pytest

from continualcode.agent import Agent
from continualcode.backends import TinkerBackend
from continualcode.policy import Policy
from continualcode.sdpo import SDPOConfig, SDPOTrainer
from continualcode.testing import VOCABULARY, BytesRenderer
from continualcode.tools.registry import ToolRegistry, tool
from continualcode.types import Message, Sampling, ToolCall


@pytest.fixture(scope="module")
def module():
    """A module of the benchmark: `module("round_trips_server")`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        yield importlib.import_module


@pytest.fixture
async def measured(module, official_client):
    """The requests of three corrections after a warm-up: `await measured(config)`."""
    lib, ours = module("round_trips_server"), module("round_trips_ours")
    servers = []

    @tool
    def write(path: str) -> str:
        """Writes."""
        return path

    async def corrected(config):
        script = BytesRenderer().completion(Message("assistant", "", calls=(ToolCall("write", {"path": "a"}),)))
        servers.append(server := lib.start(lib.InstantService(script, VOCABULARY)))
        server.latency = 0.05
        backend = await TinkerBackend.connect(official_client(server.url), model_name=lib.MODEL, tokenizer=object())
        trainer = SDPOTrainer(backend, BytesRenderer(), config)
        policy = Policy(backend, BytesRenderer(), Sampling(candidates=trainer.topk))
        agent = Agent(policy, ToolRegistry([write]), [ours.Denies()], learner=trainer)
        spans = [await ours.correction(agent, "go") for _ in range(4)]
        return lib, [lib.within(server.requests, *span) for span in spans[1:]]

    yield corrected
    for server in servers:
        server.die()


@pytest.mark.parametrize("config", [SDPOConfig(), SDPOConfig(alpha=1.0, distillation_topk=None)])
async def test_a_correction_is_scored_stepped_and_retried_with_nothing_else_waited_for(measured, config):
    lib, corrections = await measured(config)
    for requests in corrections:
        names = [request.name for request in requests]
        assert names.count("asample") == 3, "the teacher's score, the retry, and beside it the score for the report"
        assert names.count("forward_backward") == 1
    chain = min((lib.longest_chain(requests) for requests in corrections), key=len)  # a busy machine only lengthens it
    assert len(chain) <= 8, " > ".join(request.name for request in chain)
