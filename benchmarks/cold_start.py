"""What the cold start is worth: well-formed and sensible first calls on held-out prompts, with and without it.

    python benchmarks/cold_start.py [--adapter FOLDER] [--samples 3] [--json FILE]

Greedy once and at temperature 1 `--samples` times a prompt; then, on requests that are answered by writing an
existing file, the probability of each tool before and after the correction "use edit_lines; don't overwrite the file".
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from unittest import mock

import numpy as np
from cold_start_prompts import CORRECTION, OVERWRITES, PROMPTS, Prompt
from tinker import types

from continualcode.local import SamplingClient, ServiceClient, pretrained
from continualcode.prompts import SYSTEM_PROMPT
from continualcode.renderers import make_renderer
from continualcode.sdpo.reprompt import teacher_context
from continualcode.tools import standard_tools
from continualcode.tools.registry import ToolRegistry
from continualcode.tools.workspace import Workspace
from continualcode.types import Completion, Conversation, Lesson, Message, Reply, ToolCall, Turn

TOOLS = ("read", "write", "edit", "edit_lines", "glob", "grep", "bash")
MAX_TOKENS = 160


@dataclass(frozen=True, slots=True)
class Outcome:
    """One reply to one prompt."""

    raw: str
    well_formed: bool
    sensible: bool


class Examinee:
    """One model, asked through the program's own renderer and judged by its own registry."""

    def __init__(self, client: SamplingClient) -> None:
        self.client, self.renderer = client, make_renderer(client.get_tokenizer())
        self.registry = ToolRegistry(standard_tools(Workspace(Path(tempfile.mkdtemp()))))
        self.opening = Conversation((Message("system", SYSTEM_PROMPT),), self.registry.specs)

    def replies(self, conversation: Conversation, temperature: float, count: int = 1) -> list[Reply]:
        prompt = types.ModelInput.from_ints(list(self.renderer.prompt(conversation)))
        params = types.SamplingParams(
            max_tokens=MAX_TOKENS, temperature=temperature, seed=0, stop=list(self.renderer.stop)
        )
        answer = self.client.sample(prompt, count, params).result()
        return [self.renderer.parse(tuple(sequence.tokens)) for sequence in answer.sequences]

    def outcomes(self, prompt: Prompt, temperature: float, count: int = 1) -> list[Outcome]:
        asked = self.opening.add(Message("user", prompt.text))
        return [self._judged(prompt, reply) for reply in self.replies(asked, temperature, count)]

    def tool_probabilities(self, conversation: Conversation) -> dict[str, float]:
        """The probability that the reply is a call of this tool: of the tokens up to and including its name."""
        prompt = self.renderer.prompt(conversation)
        return {name: float(np.exp(self._logprob(prompt, self._name_tokens(name)))) for name in TOOLS}

    def _judged(self, prompt: Prompt, reply: Reply) -> Outcome:
        call = reply.call
        if call is None or self.registry.check(call) is not None:
            return Outcome(reply.raw or reply.text, False, False)
        return Outcome(call.to_json(), True, prompt.accepts(call))

    def _name_tokens(self, name: str) -> tuple[int, ...]:
        tokens = self.renderer.completion(Message("assistant", "", calls=(ToolCall(name, {"path": "a"}),)))
        texts = accumulate(self.renderer.decode(token) for token in tokens)
        return tokens[: 1 + next(i for i, text in enumerate(texts) if f'"name": "{name}",' in text)]

    def _logprob(self, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> float:
        scored = self.client.compute_logprobs(types.ModelInput.from_ints([*prompt, *tokens])).result()
        return float(sum(value for value in scored[len(prompt) :] if value is not None))


def denied(opening: Conversation, request: str, call: ToolCall) -> Conversation:
    """The conversation as the agent keeps it after the denial."""
    return opening.add(
        Message("user", request),
        Message("assistant", "", calls=(call,)),
        Message("tool", f"denied: {CORRECTION}", tool=call.name),
    )


def asked_again(opening: Conversation, request: str) -> Conversation:
    """The conversation as the teacher is shown it."""
    context = opening.add(Message("user", request))
    turn = Turn(context, Reply(""), Completion((), (), np.zeros(0)))
    asked = teacher_context(Lesson(turn, CORRECTION))
    assert asked is not None
    return asked


def examine(examinee: Examinee, samples: int) -> list[tuple[Prompt, Outcome, list[Outcome]]]:
    return [(p, examinee.outcomes(p, 0.0)[0], examinee.outcomes(p, 1.0, samples) if samples else []) for p in PROMPTS]


def show(name: str, rows: Sequence[tuple[Prompt, Outcome, list[Outcome]]]) -> dict[str, float]:
    for prompt, greedy, _ in rows:
        mark = "ok " if greedy.sensible else "-- " if greedy.well_formed else "XX "
        print(f"  {mark} {prompt.text[:48]:<48} {greedy.raw[:110]!r}")
    sampled = [outcome for *_, outcomes in rows for outcome in outcomes]
    figures: dict[str, float] = {
        "prompts": len(rows),
        "well_formed": sum(greedy.well_formed for _, greedy, _ in rows),
        "sensible": sum(greedy.sensible for _, greedy, _ in rows),
    }
    if sampled:
        figures["well_formed_t1"] = sum(outcome.well_formed for outcome in sampled) / len(sampled)
        figures["sensible_t1"] = sum(outcome.sensible for outcome in sampled) / len(sampled)
    print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()), end="\n\n")
    return figures


@dataclass(frozen=True, slots=True)
class Turned:
    """One request answered by a call, and what the correction does to the next proposal without any training."""

    request: str
    first: str
    corrected: tuple[str, ...]
    """Greedy proposals: after the denial in the conversation, and when asked again as the teacher is."""
    probabilities: tuple[dict[str, float], ...]
    """Of each tool: before, after the denial, asked again."""


def turn(examinee: Examinee, request: str) -> Turned:
    before = examinee.opening.add(Message("user", request))
    first = examinee.replies(before, 0.0)[0]
    refused = first.call or ToolCall("write", {"path": "?", "content": "?"})
    contexts = (denied(examinee.opening, request, refused), asked_again(examinee.opening, request))
    return Turned(
        request,
        first.raw,
        tuple(examinee.replies(context, 0.0)[0].raw for context in contexts),
        tuple(examinee.tool_probabilities(context) for context in (before, *contexts)),
    )


def show_overwrites(rows: Sequence[Turned]) -> None:
    """How a write turns under the correction, request by request; nothing of it was trained on."""
    table = np.array([[(each["write"], each["edit_lines"]) for each in row.probabilities] for row in rows])
    print(f"P(write) P(edit_lines):{'before':>10}{'denied':>16}{'asked again':>16}")
    for row, figures in zip([*(row.request for row in rows), "mean"], [*table, table.mean(0)], strict=True):
        print(" " * 21, *(f"{write:.3f}  {lines:.3f} |" for write, lines in figures), repr(row[:60]))


@contextmanager
def sampling_client(adapter: Path | None) -> Iterator[SamplingClient]:
    """The default model with this adapter as its cold start, or untuned."""
    with mock.patch.object(pretrained, "cold_start", return_value=adapter), ServiceClient(dtype="float32") as service:
        yield service.create_sampling_client(base_model=pretrained.DEFAULT_MODEL).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--adapter", type=Path, default=pretrained.cold_start(pretrained.DEFAULT_MODEL))
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--tuned-only", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.adapter is None:
        sys.exit("no adapter is shipped for the default model; make one: python -m continualcode.local.coldstart")
    report: dict[str, object] = {}
    started = time.perf_counter()
    if not options.tuned_only:
        with sampling_client(None) as client:
            report["untuned"] = show("untuned", examine(Examinee(client), options.samples))
    with sampling_client(options.adapter) as client:
        examinee = Examinee(client)
        report["cold-started"] = show("cold-started", examine(examinee, options.samples))
        turned = [turn(examinee, request) for request in OVERWRITES]
        show_overwrites(turned)
        report["overwrites"] = [asdict(each) for each in turned]
    print(f"{time.perf_counter() - started:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
