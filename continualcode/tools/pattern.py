"""What a glob's pattern means: **/ is any number of folders, {a,b} either. Knows nothing of how files are found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from continualcode.errors import ToolError
from continualcode.tools.scan import translate

MOST_ALTERNATIVES = 1000
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_PLAIN = re.compile(r"(?!.*\*\*)[\w.*?-]+")


@dataclass(frozen=True, slots=True)
class Pattern:
    """Its alternatives, each as the parts between slashes."""

    alternatives: tuple[tuple[str, ...], ...]

    @classmethod
    def read(cls, text: str) -> Pattern:
        """Raises ToolError."""
        if not text or text.startswith("/") or ".." in text.split("/"):
            raise ToolError(f"pat must be a pattern relative to path, like **/*.py, not {text!r}")
        parted = (plain.split("/") for plain in _written_out(text))
        return cls(tuple(tuple(part for part in parts if part not in ("", ".")) for parts in parted))

    @property
    def last_parts(self) -> tuple[str, ...]:
        """What all files that fit are called, where that is a glob that everybody reads alike; else empty."""
        plain = all("**" in parts and _PLAIN.fullmatch(parts[-1]) for parts in self.alternatives)
        return tuple(parts[-1] for parts in self.alternatives) if plain else ()

    def matching(self, names: Sequence[str], prefix: str) -> list[str]:
        """The names that begin with the prefix and then fit; for alternatives without ** folders as well, which end in
        a slash. Each once, in no order."""
        found = [name for parts in self.alternatives for name in _matching(parts, names, prefix)]
        return found if len(self.alternatives) == 1 else list(set(found))


def _written_out(text: str) -> list[str]:
    done, todo = list[str](), [text]
    while todo:
        item = todo.pop()
        if (braces := _BRACES.search(item)) is None:
            done.append(item)
            continue
        todo += [item[: braces.start()] + choice + item[braces.end() :] for choice in braces[1].split(",")]
        if len(done) + len(todo) > MOST_ALTERNATIVES:
            raise ToolError(f"pat stands for too many patterns: {text}")
    return done


def _matching(parts: Sequence[str], names: Sequence[str], prefix: str) -> Iterable[str]:
    try:
        whole = translate("/" + "/".join(parts)).replace("/", "", 1)  # the slash: /** is all that is below
        fits = re.compile(re.escape(prefix) + whole).fullmatch
    except re.error as error:
        raise ToolError(f"pat is no pattern: {error}") from error
    if "**" in parts:
        return filter(fits, names)
    return (name for name in _at_depth(names, prefix, len(parts)) if fits(name.rstrip("/")))


def _at_depth(names: Sequence[str], prefix: str, depth: int) -> set[str]:
    """The files and folders so many folders below the prefix."""
    depth += prefix.count("/")
    parted = (name.split("/", depth) for name in names)
    return {"/".join(parts[:depth]) + "/" * (len(parts) > depth) for parts in parted if len(parts) >= depth}
