"""Prefix: the first words of a command, as a rule about every command that begins so. Knows nothing of who made the rule.

It covers a command only when every word is known and none of those after the prefix can make the program do something
else: write, delete, run another program, read another configuration. The tables may ask too often; a program that is
not in them is taken at its word, apart from options whose name says enough.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from continualcode.approval.bash import Script, parse
from continualcode.approval.command import SHELLS, Command, names, program_of
from continualcode.errors import ConfigError

_INTERPRETERS = SHELLS | names(
    "awk bun bunx deno doas ed emacs ex fish gawk julia lua mawk nawk node nodejs npx perl php pipx pwsh pypy python ruby R "
    "Rscript sed sqlite sudo tclsh uvx vi vim"
)
"""Programs that run whatever they are given: a prefix has to say what."""
_ANYTHING = names("busybox eval expect gdb osascript parallel script ssh strace su watch")
"""Programs whose later words may always be another program; no prefix of them allows anything."""
_WITH_SUBCOMMANDS = names(
    "apt brew bundle cargo composer conda docker dotnet gh git go gradle hatch helm just kubectl make mvn nox npm pdm pip "
    "pnpm poetry rails rake rye tar task terraform tox uv yarn"
)
_RUNNING = names("dlx exec run tool x")
"""Subcommands that run the program named after them."""
_PLAIN_OPTIONS = ("--no-pager", "-c", "-e", "-m", "-n")
"""Options before what is run or the subcommand that hide neither."""
_TELLING = tuple(
    names(
        "basetemp checkpoint command config delete editor eval exec fix hook import install load manifest output pager parser "
        "plugin prefix preset program publish receive remove report require rewrite rsh rules save script set shell textconv "
        "to toolexec transform upload use vettool work write"
    )
)
"""Parts of long options that say that more than reading may be done. An abbreviation of one counts as well."""
_RISKY = {
    "curl": "-o -O -K -T -d -F -D -c -X",
    "date": "-s",
    "fd": "-x -X",
    "fdfind": "-x -X",
    "file": "-C -m",
    "find": "-ok -okdir -fls -fprint -fprint0 -fprintf",
    "git": "-c -C -O -x -o --git-dir --ext-diff --orderfile",
    "gofmt": "-w",
    "go": "-o -C -modfile -overlay -ldflags -gcflags",
    "iconv": "-o",
    "less": "-o -O -k +",
    "make": "-f -C -I -E --include-dir =",
    "man": "-P -H",
    "node": "-e -p -r",
    "perl": "-e -E -i -M -m",
    "prettier": "-w",
    "printf": "-v",
    "pytest": "-p -c -o --junit-xml --junitxml --log-file --rootdir --cov-report --pdbcls --pastebin --override-ini",
    "python": "-c",
    "rg": "--pre --hostname-bin",
    "ruby": "-e -i -r",
    "ruff": "-o",
    "sed": "-i -e -f --file --expression --in-place",
    "shuf": "-o",
    "sort": "-o -T",
    "tar": "-I -F -x -c -r -u -A -C",
    "test": "-v",
    "time": "-o -f -a",
    "tree": "-o -R",
    "uniq": "*",
    "wget": "-O -o -P -e",
    "xxd": "*",
    "yq": "-i",
}
"""Options that do; short ones also in a bundle. `=`: any word with one. `*`: any further word that is no option."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first words of a command, with exactly the environment assignments before it."""

    words: tuple[str, ...]
    assignments: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> Prefix:
        """A prefix written as in a shell. Raises ConfigError for anything but the beginning of one simple command."""
        script = parse(text)
        first = script.commands[0] if script.commands else Command(())
        prefix = cls(tuple(filter(None, first.words)), tuple(filter(None, first.assignments)))
        plain = first.words and None not in (*first.words, *first.assignments) and not script.redirections
        if not plain or parse(str(prefix)).commands != script.commands:
            raise ConfigError(f"not the beginning of one plain command: {text!r}")
        return prefix

    def __str__(self) -> str:
        named = (assignment.partition("=") for assignment in self.assignments)
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, _, value in named), shlex.join(self.words)])

    @property
    def problem(self) -> str | None:
        """Why this must not be a reason to allow anything; None when it may."""
        if _unversioned(self.words[0]) in _ANYTHING:
            return f"{self.words[0]} runs whatever it is given; allow the exact call instead"
        running = _RUNNING if self.words[0] in _WITH_SUBCOMMANDS or _is_interpreter(self.words[0]) else frozenset()
        for index, word in enumerate(self.words):
            says_what = any(not later.startswith("-") for later in self.words[index + 1 :])
            if not says_what and (_is_interpreter(word) or (index and word in running)):
                return f"{self} runs whatever it is given; say what, as in `python -m pytest`"
        return None

    def covers(self, command: Command) -> bool:
        """Whether the command begins so and what follows cannot do more than read or take other operands."""
        rest = command.words[len(self.words) :]
        begins = command.words[: len(self.words)] == self.words and command.assignments == self.assignments
        return begins and self.problem is None and not any(word is None or self._is_risky(word) for word in rest)

    def matches(self, command: Command) -> Literal["yes", "maybe", "no"]:
        """Whether the command begins so, wherever its program lies and whatever is set for it; for refusing."""
        if not command.words or program_of(command.words[0] or "") != program_of(self.words[0]):
            return "no"
        if command.words[1 : len(self.words)] == self.words[1:]:
            return "yes"
        following = iter(command.words[1:])
        return "maybe" if None in command.words or all(word in following for word in self.words[1:]) else "no"

    def _is_risky(self, word: str) -> bool:
        programs = {_unversioned(item) for item in self.words} & _RISKY.keys()
        risky = [option for program in programs for option in _RISKY[program].split()]
        if word.startswith("@") or ("=" in word and "=" in risky) or (word.startswith("+") and "+" in risky):
            return True
        if not word.startswith("-") or word == "-":
            return "*" in risky
        name = word.lstrip("-").partition("=")[0]
        if word.startswith("--"):
            return any(option.startswith("--" + name) for option in risky if name) or _tells(name)
        bundled = {option[1] for option in risky if len(option) == 2 and option.startswith("-")}
        return word.partition("=")[0] in risky or bool(bundled & set(name)) or (len(name) > 2 and _tells(name, 4))


def covered(script: Script, prefixes: Iterable[Prefix]) -> bool:
    """Whether this is certainly nothing but commands that one of the prefixes covers."""
    known = tuple(prefixes)
    return (
        script.unclear is None
        and not script.redirections
        and bool(script.commands)
        and all(any(prefix.covers(command) for prefix in known) for command in script.commands)
    )


def suggested(script: Script) -> tuple[Prefix, ...]:
    """The prefixes that would cover this and things like it, one for each kind of command; () when none may."""
    prefixes = []
    for command in script.commands:
        words = tuple(word for word in command.words if word is not None)
        prefixes.append(Prefix(words[: _length(words)], tuple(filter(None, command.assignments))))
        if not prefixes[-1].words or any(
            Prefix(words[:1])._is_risky(word) for word in words[1 : _length(words)] if word != "--no-pager"
        ):
            return ()
    return tuple(dict.fromkeys(prefixes)) if covered(script, prefixes) else ()


def _length(words: tuple[str, ...]) -> int:
    """How many words say what the command is: program, subcommand, and what that runs. All, where options hide that."""
    if not words or not (_is_interpreter(words[0]) or words[0] in _WITH_SUBCOMMANDS):
        return len(words[:1])
    operand = next((index for index, word in enumerate(words) if index and not word.startswith("-")), len(words))
    rest = words[operand + 1 :]
    plain = _PLAIN_OPTIONS if _is_interpreter(words[0]) else _PLAIN_OPTIONS[:1]
    runs_more = words[operand : operand + 1] and words[operand] in _RUNNING
    if not set(words[1:operand]) <= set(plain) or (runs_more and rest and rest[0].startswith("-")):
        return len(words)
    return operand + 1 + _length(rest) if runs_more else operand + 1


def _is_interpreter(word: str) -> bool:
    return _unversioned(word) in _INTERPRETERS


def _unversioned(word: str) -> str:
    return program_of(word).rstrip("0123456789.") or word


def _tells(name: str, shortest: int = 1) -> bool:
    """Whether a part of an option's name says so, or is long enough an abbreviation of what does."""
    spelt = "".join(f"-{char.lower()}" if char.isupper() else char for char in name.replace("_", "-"))
    parts = [part for part in spelt.split("-") if part]
    said = any(part.startswith(word) or (len(word) > 4 and word in part) for part in parts for word in _TELLING)
    return said or any(word.startswith(part) for part in parts if len(part) >= shortest for word in _TELLING)
