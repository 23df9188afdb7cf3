"""One loaded base model and the thread that works for it; knows nothing of clients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from continualcode.local import loading
from continualcode.local.engine import Engine
from continualcode.local.future import Worker
from continualcode.local.network import Network
from continualcode.local.prefix import PrefixStats


class Model:
    """What every client of one base model shares. `source` is the folder or hub id its files come from."""

    def __init__(self, name: str, source: str, network: Network, worker: Worker, cache_bytes: int) -> None:
        self.name, self.source, self.worker = name, source, worker
        self.architecture = type(network).__name__
        self.engine = Engine(network, cache_bytes, lambda tokens: str(self.tokenizer.decode(tokens)))

    @cached_property
    def tokenizer(self) -> Any:
        return loading.load_tokenizer(self.source)

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Ids that end a sample when no stop is given: those of generation_config.json, else the tokenizer's."""
        said = loading.read_json(loading.local_folder(self.source) / "generation_config.json")
        found: int | list[int] | None = said.get("eos_token_id")
        if found is None:
            found = self.tokenizer.eos_token_id
        return frozenset([found] if isinstance(found, int) else found or [])


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the prefix cache did for one model, and how many bytes it holds."""

    prefix: PrefixStats
    prefix_bytes: int
