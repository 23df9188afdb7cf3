"""Trains the cold-start adapter through the engine's own clients, and writes it as it is shipped."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tinker import types

from continualcode.local import ServiceClient, TrainingClient
from continualcode.local.coldstart.data import Session, make_sessions
from continualcode.local.pretrained import DEFAULT_MODEL, resolve
from continualcode.prompts import SYSTEM_PROMPT
from continualcode.protocols import Renderer
from continualcode.renderers import make_renderer
from continualcode.tools import standard_tools
from continualcode.tools.workspace import Workspace
from continualcode.types import Conversation, Message

ADAPTER = Path(__file__).parent / DEFAULT_MODEL
"""Where the shipped adapter lies."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the shipped adapter was made. The learning rate rises for `warmup` steps, then falls linearly to 0."""

    seed: int = 0
    sessions: int = 288
    batch: int = 4
    rank: int = 8
    learning_rate: float = 1.2e-3
    warmup: int = 4

    @property
    def steps(self) -> int:
        return self.sessions // self.batch

    def rate(self, step: int) -> float:
        return self.learning_rate * min((step + 1) / self.warmup, 1 - step / self.steps)


def train(folder: Path, recipe: Recipe = Recipe(), report: Callable[[str], None] = print) -> None:
    """Trains from the base model and writes the adapter (peft format, bfloat16) to `folder`."""
    torch.manual_seed(recipe.seed)
    # By its folder the model is loaded as it came, without the adapter that is shipped under its name.
    base = resolve(DEFAULT_MODEL)
    with tempfile.TemporaryDirectory() as scratch, ServiceClient(dtype="float32", state_dir=scratch) as service:
        client = service.create_lora_training_client(base, rank=recipe.rank, seed=recipe.seed).result()
        data = [*examples(make_renderer(client.get_tokenizer()), make_sessions(recipe.sessions, recipe.seed))]
        Random(recipe.seed).shuffle(data)
        started = time.perf_counter()
        for step in range(recipe.steps):
            batch = data[step :: recipe.steps]
            loss = _step(client, batch, recipe.rate(step))
            report(f"step {step + 1}/{recipe.steps}  loss {loss:.4f}  {time.perf_counter() - started:.0f} s")
        _ship(Path(client.save_state("cold-start").result().path), folder)


@dataclass(frozen=True, slots=True)
class TokenExample:
    """One session in tokens; `learned[i]` says whether tokens[i] was written by the assistant and is to be learned."""

    tokens: tuple[int, ...]
    learned: tuple[bool, ...]


def opening() -> Conversation:
    """What every session of the program begins with: the system prompt and the standard tools."""
    with tempfile.TemporaryDirectory() as folder:
        specs = tuple(tool.spec for tool in standard_tools(Workspace(Path(folder))))
    return Conversation((Message("system", SYSTEM_PROMPT),), specs)


def examples(renderer: Renderer, sessions: Sequence[Session]) -> Iterator[TokenExample]:
    """Each session exactly as the program renders it, turn by turn.

    Turns of which one's prompt continues the other's tokens share an example, so that what they have in common is
    read once.
    """
    start = opening()
    for session in sessions:
        tokens: tuple[int, ...] = ()
        learned: tuple[bool, ...] = ()
        for position in sorted(session.learned):
            prompt = renderer.prompt(start.add(*session.messages[:position]))
            completion = renderer.completion(session.messages[position])
            if tokens and prompt[: len(tokens)] != tokens:
                yield TokenExample(tokens, learned)
                learned = ()
            learned += (False,) * (len(prompt) - len(learned)) + (True,) * len(completion)
            tokens = prompt + completion
        yield TokenExample(tokens, learned)


def _step(client: TrainingClient, batch: Sequence[TokenExample], learning_rate: float) -> float:
    """One optimiser step on the mean over all learned tokens of the batch; returns that mean before the step."""
    share = 1 / sum(sum(example.learned) for example in batch)
    backward = client.forward_backward([_datum(example, share) for example in batch], "cross_entropy")
    stepped = client.optim_step(types.AdamParams(learning_rate=learning_rate))
    loss = backward.result().metrics["loss:sum"]
    stepped.result()
    return loss


def _datum(example: TokenExample, share: float) -> types.Datum:
    weights = np.array(example.learned[1:], np.float32) * share
    return types.Datum(
        model_input=types.ModelInput.from_ints(list(example.tokens[:-1])),
        loss_fn_inputs={
            "target_tokens": types.TensorData.from_numpy(np.array(example.tokens[1:], np.int64)),
            "weights": types.TensorData.from_numpy(weights),
        },
    )


def _ship(saved: Path, folder: Path) -> None:
    """peft's two files, the weights in bfloat16, without what only this machine knows."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = load_file(saved / "adapter_model.safetensors")
    halved = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    save_file(halved, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = json.loads((saved / "adapter_config.json").read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = DEFAULT_MODEL
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
