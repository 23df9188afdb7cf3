"""One simple command of bash, and the commands it runs in its turn (sudo, env, xargs, find -exec, bash -c, eval)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Words: TypeAlias = "tuple[str | None, ...]"


def names(text: str) -> frozenset[str]:
    """A table of names, written as words."""
    return frozenset(text.split())


SHELLS = names("ash bash dash ksh sh zsh")
_BEFORE = {
    "builtin": ("", 0),
    "command": ("", 0),
    "doas": ("Cu", 0),
    "env": ("Cu", 0),
    "exec": ("a", 0),
    "ionice": ("cnpPu", 0),
    "nice": ("n", 0),
    "nohup": ("", 0),
    "setsid": ("", 0),
    "stdbuf": ("eio", 0),
    "sudo": ("CDghpRrTtUu", 0),
    "time": ("fo", 0),
    "timeout": ("ks", 1),
    "xargs": ("adEILnPs", 0),
}
"""Options whose argument is the next word, and how many words come before the command to run."""
_FIND_RUNS = names("-exec -execdir -ok -okdir")


class UnclearError(Exception):
    """What a command line does cannot be told for certain; the message says why."""


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command, as bash would run it. None stands for words known only when it runs."""

    words: Words
    """Program and arguments, quotes removed; empty for a mere assignment."""
    assignments: Words = ()
    """`NAME=value` before the program."""


def program_of(word: str) -> str:
    """The name of a program given by name or by path."""
    return word.rpartition("/")[2]


def runs(words: Words) -> Iterator[Command | str]:
    """The commands, and the scripts, that this command would run. Raises UnclearError when that cannot be told."""
    program = program_of(words[0] or "") if words else ""
    if program in SHELLS:
        yield from _shell_script(words[1:])
    elif program == "eval":
        yield " ".join(_known(word) for word in words[1:])
    elif program == "find":
        yield from _found(words[1:])
    elif program in _BEFORE:
        yield from _behind(program, list(words[1:]))


def _shell_script(words: Words) -> Iterator[str]:
    given = False
    for word in map(_known, words):
        if word[:1] not in ("-", "+"):
            if given:
                yield word
            return
        if word.startswith("--") or set("oO") & set(word):
            raise UnclearError(f"the shell's option {word} is not known")
        given = given or "c" in word
    raise UnclearError("a shell reads commands from its input")


def _found(words: Words) -> Iterator[Command]:
    for start in (index for index, word in enumerate(words, 1) if word in _FIND_RUNS):
        rest = words[start:]
        end = next(
            (i for i, word in enumerate(rest) if word == ";" or (word == "+" and rest[i - 1] == "{}")), len(rest)
        )
        yield Command(_with_unknown(rest[:end]))


def _behind(program: str, words: list[str | None]) -> Iterator[Command]:
    with_argument, positional = _BEFORE[program]
    options = ""
    while words and (word := _known(words[0])).startswith("-"):
        del words[0]
        if word == "--":
            break
        if word.startswith("--"):
            raise UnclearError(f"the option {word} of {program} is not known")
        options += word
        taken = next((index for index, letter in enumerate(word) if letter in with_argument), None)
        if taken is not None and taken == len(word) - 1 and words:
            options += _known(words.pop(0))
    if (program == "env" and "S" in options) or (
        program == "xargs" and {"I", "i"} & set(options) and "{}" not in options
    ):
        raise UnclearError(f"{program} makes other words of its arguments")
    del words[:positional]
    assignments = []
    while program in ("doas", "env", "sudo") and words and "=" in _known(words[0]):
        assignments.append(words.pop(0))
    if program == "xargs":
        words = [*_with_unknown(words or ["echo"]), None]
    if words and not (program == "command" and {"v", "V"} & set(options)):
        yield Command(tuple(words), tuple(assignments))


def _with_unknown(words: Sequence[str | None]) -> Words:
    return tuple(None if word is None or "{}" in word else word for word in words)


def _known(word: str | None) -> str:
    if word is None:
        raise UnclearError("what it runs is known only when it runs")
    return word
