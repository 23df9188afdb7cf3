"""Where a run is, so that it goes on from there after whatever ended it. Knows nothing of models.

A run's folder holds settings.json, log.jsonl, state.json and, of the embedded engine, the weights. state.json is
replaced in one go once all that it names is on disk; what the log has beyond it is cut off and done again, from the
same seeds, which all derive from `shuffle_seed` and a place in the order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from continualcode.errors import ConfigError
from livecode.settings import MAY_CHANGE, Settings


class State(BaseModel):
    """`place`: how far into the order of the problems. `step`: optimiser steps done; the checkpoint is of that step."""

    model_config = ConfigDict(frozen=True)

    place: int = 0
    step: int = 0
    solved: tuple[str, ...] = ()
    checkpoint: str | None = None
    teacher: str | None = None
    log_bytes: int = 0


def resumed(folder: Path, settings: Settings) -> State:
    """The state that the folder's run was saved in last, or a new run's. Raises ConfigError where it is another's."""
    folder.mkdir(parents=True, exist_ok=True)
    file, saved, now = folder / "settings.json", folder / "state.json", settings.model_dump(mode="json")
    state = State()
    if saved.is_file():
        try:
            state, before = State.model_validate_json(saved.read_bytes()), json.loads(file.read_text("utf-8"))
        except (ValueError, OSError) as error:
            raise ConfigError(f"the run in {folder} cannot be read: {error}") from error
        if differ := [key for key in now if now[key] != before.get(key) and key not in MAY_CHANGE]:
            found = ", ".join(f"{key}={before.get(key)} there and {now[key]} here" for key in sorted(differ))
            raise ConfigError(f"{folder} holds a run with other settings: {found}. Give another log_path, or remove it")
    write(file, json.dumps(now, indent=2))
    return state


def write(file: Path, text: str) -> None:
    """The file is what it was or what it shall be, whatever happens meanwhile."""
    part = file.with_suffix(".part")
    with part.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, file)


def next_batch(state: State, ids: Sequence[str], settings: Settings) -> tuple[list[int], int]:
    """Indices of the problems to try next, and the place behind them; none at the end. No batch crosses an epoch."""
    count, place, chosen = len(ids), state.place, []
    solved: Set[str] = frozenset(state.solved if settings.skip_solved else ())
    while place < count * settings.epochs and len(chosen) < settings.batch_size:
        if chosen and place % count == 0:
            break
        order = np.random.default_rng([settings.shuffle_seed, place // count]).permutation(count)
        if ids[index := int(order[place % count])] not in solved:
            chosen.append(index)
        place += 1
    return chosen, place


def seed(*of: int) -> int:
    """A seed of its own for each tuple of numbers."""
    return int(np.random.SeedSequence(of).generate_state(1)[0])
