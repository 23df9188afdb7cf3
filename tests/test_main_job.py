"""The main job on the real embedded model: ask, deny with a reason, one step, retry. In process, and by the official
SDK over HTTP to a server in front of the same engine."""

import asyncio

import numpy as np
import pytest
from transformers import AutoTokenizer

from continualcode.agent import Agent
from continualcode.backends import TinkerBackend
from continualcode.events import Learned, Proposed, Reviewed, ToolReturned
from continualcode.local import ServiceClient
from continualcode.local.pretrained import DEFAULT_MODEL, resolve
from continualcode.policy import Policy
from continualcode.prompts import SYSTEM_PROMPT
from continualcode.renderers import make_renderer
from continualcode.sdpo import SDPOConfig, SDPOTrainer
from continualcode.tools import READ_ONLY, ToolRegistry, Workspace, standard_tools
from continualcode.types import Approve, Deny, Sampling

# The SDK never closes the connection over which it fetches its configuration.
pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]
CALC = "def add(a, b):\n    return a - b\n"
REQUEST = f"Update add() in calc.py so that it returns a + b. The file is:\n{CALC}"
REASON = "use edit_lines; don't overwrite the file"


class Person:
    """Lets the model read, denies the first call that changes the file, and stops the run at the second."""

    def __init__(self):
        self.denied = []

    async def review(self, turn, call):
        if call.name in READ_ONLY:
            return Approve()
        self.denied.append(call)
        return Deny(REASON, teach=len(self.denied) == 1)


@pytest.fixture(params=["in process", "over http"])
async def backend(request, tmp_path):
    engine = ServiceClient(state_dir=tmp_path / "state", dtype="float32")
    if request.param == "in process":
        service, options = engine, {}
    else:
        url = request.getfixturevalue("wire_server")(engine).url
        service = request.getfixturevalue("official_client")(url)
        options = {"tokenizer": AutoTokenizer.from_pretrained(resolve(DEFAULT_MODEL))}
    yield await TinkerBackend.connect(service, model_name=DEFAULT_MODEL, lora_rank=16, seed=0, **options)
    engine.close()


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "calc.py").write_text(CALC)
    return Workspace(tmp_path / "work")


async def test_a_denial_is_learned_from_and_the_next_proposal_is_another(backend, workspace):
    renderer = make_renderer(backend.tokenizer, model_name=DEFAULT_MODEL)
    trainer = SDPOTrainer(backend, renderer, SDPOConfig(learning_rate=3e-4))
    person = Person()
    agent = Agent(
        Policy(backend, renderer, Sampling(max_tokens=120, seed=0, candidates=trainer.topk)),
        ToolRegistry(standard_tools(workspace)),
        [person],
        learner=trainer,
        system=SYSTEM_PROMPT,
    )
    first, retries, report = None, [], None
    async with asyncio.timeout(240):
        async for event in agent.run(REQUEST):
            match event:
                case Reviewed(verdict=Deny(teach=True)):
                    first = event.turn
                case Learned():
                    report = event.report
                case Proposed() if report is not None:
                    retries.append(event.turn)
                    break
                case ToolReturned(call=call):
                    assert call.name in READ_ONLY
    assert (workspace.root / "calc.py").read_text() == CALC, "a denied call ran"
    assert first.reply.call == person.denied[0]

    completion, initial, newest = first.completion, backend.initial_sampler, backend.sampler
    assert completion.origin is initial
    assert retries[0].completion.origin is newest
    assert retries[0].reply.call != first.reply.call
    rescored_T = await initial.logprobs(completion.prompt, completion.tokens)
    np.testing.assert_allclose(rescored_T, completion.logprobs_T, atol=1e-3)
    assert report.logprob_after < report.logprob_before - 1.0
    assert f"denied: {REASON}" in [message.content for message in agent.conversation.messages]
