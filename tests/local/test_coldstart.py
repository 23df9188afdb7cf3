"""The cold-start data by itself, its rendering, and that the adapter shipped with the package does its work."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from continualcode.local.coldstart.data import make_sessions
from continualcode.tools import standard_tools
from continualcode.tools.registry import ToolRegistry
from continualcode.tools.workspace import Workspace

COUNT = 1500


@pytest.fixture(scope="module")
def sessions():
    return make_sessions(COUNT, seed=0)


@pytest.fixture(scope="module")
def texts(sessions):
    return [
        "\n".join([message.content, *(call.to_json() for call in message.calls)])
        for session in sessions
        for message in session.messages
    ]


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "cold_start_prompts.py"
    spec = importlib.util.spec_from_file_location("cold_start_prompts", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def registry(tmp_path):
    return ToolRegistry(standard_tools(Workspace(tmp_path)))


def test_a_seed_fixes_every_session_and_another_seed_makes_others():
    assert make_sessions(50, seed=3) == make_sessions(50, seed=3)
    assert make_sessions(50, seed=3) != make_sessions(50, seed=4)
    assert make_sessions(80, seed=3)[:50] == make_sessions(50, seed=3)


def test_every_call_of_every_session_passes_the_programs_own_check(sessions, registry):
    calls = [call for session in sessions for message in session.messages for call in message.calls]
    assert [problem for call in calls if (problem := registry.check(call))] == []
    assert {call.name for call in calls} == {spec.name for spec in registry.specs}


def test_what_is_learned_is_written_by_the_assistant_one_call_or_an_answer(sessions):
    for session in sessions:
        learned = [session.messages[position] for position in session.learned]
        assert learned
        assert all(message.role == "assistant" and len(message.calls) <= 1 for message in learned)
        assert all(bool(message.calls) != bool(message.content) for message in learned)


def test_tool_results_follow_calls_and_roles_alternate_as_in_the_agents_conversation(sessions):
    for session in sessions:
        for before, after in zip(session.messages, session.messages[1:], strict=False):
            assert (after.role == "assistant") == (before.role in ("user", "tool"))
            if after.role == "tool":
                assert after.tool == before.calls[0].name


def test_arguments_are_copied_from_what_the_model_has_read(sessions):
    """Paths of calls, apart from those a correction replaced, stand in the session before the call."""
    made_up = 0
    total = 0
    for session in sessions:
        for position in session.learned:
            seen = "\n".join(message.content for message in session.messages[:position])
            seen += "\n".join(call.to_json() for message in session.messages[:position] for call in message.calls)
            for call in session.messages[position].calls:
                if "path" in call.arguments:
                    total += 1
                    made_up += str(call.arguments["path"]) not in seen
    assert total > COUNT / 2
    assert made_up == 0


def test_about_a_third_of_the_tasks_hold_a_correction_in_both_forms(sessions):
    messages = [message for session in sessions for message in session.messages]
    denied = sum(message.content.startswith("denied: ") for message in messages)
    asked_again = sum("unsuccessful earlier attempt" in message.content for message in messages)
    tasks = sum(message.role == "user" for message in messages)
    assert 0.1 < denied / tasks < 0.2
    assert 0.1 < asked_again / tasks < 0.2


def test_a_refused_call_is_never_learned(sessions):
    for session in sessions:
        for position, message in enumerate(session.messages):
            if message.content.startswith("denied: "):
                assert position - 1 not in session.learned
                assert position + 1 in session.learned
                assert session.messages[position + 1].calls != session.messages[position - 1].calls


def test_no_held_out_prompt_or_its_file_names_occur_in_the_data(texts, benchmark):
    everything = "\n".join(texts).lower()
    files = re.compile(r"\b[\w/]+\.(?:py|md|txt)\b")
    for prompt in benchmark.PROMPTS:
        assert prompt.text.lower() not in everything
        for name in files.findall(prompt.text):
            assert not re.search(rf"(?<![\w/]){re.escape(name)}", everything), name
    for request in benchmark.OVERWRITES:
        assert request.lower() not in everything


FORBIDDEN = (
    "edit_lines",
    "overwrit",
    "poetry",
    r"uv\b",
    r"pip\b",
    "unittest",
    "pytest",
    "make test",
    "quote",
    "before edit",
    "read it first",
    "read the file first",
)


def test_no_correction_is_one_that_the_benchmarks_teach(sessions, benchmark):
    reasons = [
        message.content.removeprefix("denied: ")
        for session in sessions
        for message in session.messages
        if message.content.startswith("denied: ")
    ]
    reasons += [
        message.content.partition("unsuccessful earlier attempt:\n\n")[2]
        for session in sessions
        for message in session.messages
        if "unsuccessful earlier attempt" in message.content
    ]
    assert len(reasons) > COUNT / 5
    for reason in {reason.removesuffix("\n\nCorrectly solve the original question.").lower() for reason in reasons}:
        assert [word for word in FORBIDDEN if re.search(rf"\b{word}", reason)] == []
        assert benchmark.CORRECTION not in reason


def test_the_shipped_adapter_is_small_and_names_its_base():
    pytest.importorskip("safetensors")
    from continualcode.local.pretrained import cold_start

    folder = cold_start("smollm2-135m")
    assert folder is not None
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "smollm2-135m"
    assert (folder / "adapter_model.safetensors").stat().st_size < 6_000_000
    assert cold_start("Qwen/Qwen3-0.6B") is None


def test_rendered_examples_learn_exactly_the_assistants_tokens(sessions):
    """With a tokenizer of one token per character the learned tokens can be read off."""
    pytest.importorskip("torch")
    from continualcode.local.coldstart.train import examples, opening

    session = next(each for each in sessions if len(each.learned) >= 3)
    (example,) = examples(Characters(), [session])
    runs = "".join(
        chr(token) if learned else "\0" for token, learned in zip(example.tokens, example.learned, strict=True)
    )
    written = [run for run in runs.split("\0") if run]
    assert written == [_text(session.messages[position]) + "$" for position in sorted(session.learned)]
    whole = "".join(map(chr, example.tokens))
    assert whole.startswith(opening().messages[0].content)


def _text(message):
    return message.content + "".join(call.to_json() for call in message.calls)


class Characters:
    """A renderer whose tokens are characters: messages end in "$", and the assistant's begin with nothing."""

    stop = (ord("$"),)

    def prompt(self, conversation):
        return tuple(ord(character) for message in conversation.messages for character in _text(message) + "$")

    def completion(self, message):
        return tuple(map(ord, _text(message) + "$"))


@pytest.mark.model
def test_the_default_model_makes_sensible_calls_on_held_out_prompts(benchmark, registry):
    from tinker import types

    from continualcode.local import ServiceClient
    from continualcode.prompts import SYSTEM_PROMPT
    from continualcode.renderers import make_renderer
    from continualcode.types import Conversation, Message

    opening = Conversation((Message("system", SYSTEM_PROMPT),), registry.specs)
    with ServiceClient() as service:
        client = service.create_sampling_client(base_model="smollm2-135m").result()
        renderer = make_renderer(client.get_tokenizer())

        def call_for(text):
            prompt = types.ModelInput.from_ints(list(renderer.prompt(opening.add(Message("user", text)))))
            params = types.SamplingParams(max_tokens=80, temperature=0.0, stop=list(renderer.stop))
            return renderer.parse(tuple(client.sample(prompt, 1, params).result().sequences[0].tokens)).call

        calls = [(prompt, call_for(prompt.text)) for prompt in benchmark.PROMPTS[:5]]
    assert all(call is not None and registry.check(call) is None for _, call in calls)
    assert sum(prompt.accepts(call) for prompt, call in calls) >= 4
