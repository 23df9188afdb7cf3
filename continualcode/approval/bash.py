"""Reads a bash command into every simple command it would run, by tree-sitter-bash. Knows nothing of rules.

It errs to one side: what it does not know for certain is said to be unclear, and somebody is asked. A word counts as
known only when this module's own reading of its characters agrees that it is one word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from continualcode.approval.command import Command, UnclearError, names, runs
from continualcode.types import ToolCall

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

LONGEST = 20_000
"""Characters of a command that is still read."""
_DEEPEST = 40

_STRUCTURE = names(
    "program list pipeline redirected_statement subshell compound_statement negated_command if_statement elif_clause "
    "else_clause while_statement case_statement case_item do_group function_definition heredoc_body"
)
_ASSIGNING = names("for_statement variable_assignment variable_assignments")
_DECLARING = names("declaration_command unset_command test_command")
_EXPANSIONS = names(
    "expansion simple_expansion command_substitution process_substitution arithmetic_expansion array brace_expression "
    "ansi_c_string translated_string extglob_pattern"
)
_WALKED = _STRUCTURE | _ASSIGNING | _DECLARING | _EXPANSIONS
_SILENT = names("heredoc_start heredoc_content heredoc_end variable_name special_variable_name string_content")
_ONE_LINE = names("command file_redirect redirected_statement")
_RESERVED = names("! [[ ]] (( { } case do done elif else esac fi for function if in select then until while")
_REDEFINING = names(
    ". source alias unalias shopt set enable hash trap bind complete compgen coproc fc mapfile readarray read let "
    "getopts declare typeset local readonly export unset history"
)
"""Builtins that change what later words mean, or evaluate their arguments once more."""
_METACHARACTERS = frozenset(" \t\n;&|<>()'\"`$")
_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Script:
    """All that a command line would do, as far as can be told."""

    commands: tuple[Command, ...]
    """Every simple command, those in substitutions, functions and behind wrappers like `xargs` included."""
    redirections: tuple[str | None, ...] = ()
    """Files read or written by redirection; None: a here-document, or known only when it runs. /dev/null is left out."""
    unclear: str | None = None
    """Why this is not certainly everything."""


def parse(line: str) -> Script:
    """What `bash -c line` would run. Nothing in the line makes it raise."""
    return _parse(line, 0)


def script_of(call: ToolCall) -> Script | None:
    """What a call of the bash tool would run; None when it is no such call."""
    line = call.arguments.get("cmd")
    return parse(line) if call.name == "bash" and isinstance(line, str) else None


def _parse(line: str, depth: int) -> Script:
    reader = _Reader(line.encode("utf-8", "replace"), depth)
    try:
        _refuse_characters(line)
        root = _parser().parse(reader.source).root_node
        if root.has_error:
            raise UnclearError("it cannot be read with certainty")
        reader.blank(0, root.start_byte)
        reader.walk(root)
        reader.blank(root.end_byte, len(reader.source))
    except UnclearError as error:
        reader.unclear = reader.unclear or str(error)
    return Script(tuple(reader.commands), tuple(reader.redirections), reader.unclear)


@cache
def _parser() -> Parser:
    """Loaded with the first command, so that importing the package stays light."""
    import tree_sitter
    import tree_sitter_bash

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


@dataclass(slots=True)
class _Reader:
    source: bytes
    depth: int
    commands: list[Command] = field(default_factory=list)
    redirections: list[str | None] = field(default_factory=list)
    unclear: str | None = None

    def walk(self, node: Node, extra: tuple[Node, ...] = ()) -> None:
        """A node and what is below it. Raises UnclearError on every kind of node not known.

        `extra` are words that the grammar put after a redirection, and that are the command's own.
        """
        self.deeper()
        match node.type:
            case "command":
                self.command(node, extra)
            case "file_redirect" | "heredoc_redirect" | "herestring_redirect":
                if self.redirect(node):
                    raise UnclearError("words follow a redirection")
            case "redirected_statement":
                self.redirected(node)
            case "comment":
                before = self.source[max(node.start_byte - 2, 0) : node.start_byte]
                if before and (before[-1] not in b" \t\n;&|()" or before[:-1] == b"\\"):
                    raise UnclearError("a comment begins inside a word")
            case kind if kind in _WALKED:
                if kind in _ASSIGNING:
                    self.commands.append(Command((), (None,)))
                elif kind in _DECLARING:
                    self.commands.append(Command((self.text(node.children[0]), None)))
                for child in self.children(node):
                    self.walk(child)
            case kind if node.is_named and kind not in _SILENT:
                self.word(node)
        self.depth -= 1

    def command(self, node: Node, extra: tuple[Node, ...]) -> None:
        assignments, words = [], []
        for child in (*self.children(node), *extra):
            if child.type.endswith("_redirect"):
                self.walk(child)
            elif child.type == "variable_assignment":
                assignments.append(self.assignment(child))
            else:
                words.append(self.word(child.children[0] if child.type == "command_name" else child))
        self.add(Command(tuple(words), tuple(assignments)))

    def add(self, command: Command) -> None:
        """Notes the command and what it runs in its turn; the reading goes on when that cannot be told."""
        self.commands.append(command)
        self.deeper()
        try:
            _refuse_program(command)
            for item in runs(command.words):
                if isinstance(item, Command):
                    self.add(item)
                else:
                    script = _parse(item, self.depth)
                    self.commands.extend(script.commands)
                    self.redirections.extend(script.redirections)
                    self.unclear = self.unclear or script.unclear
        except UnclearError as error:
            self.unclear = self.unclear or str(error)
        self.depth -= 1

    def assignment(self, node: Node) -> str | None:
        """`NAME=value` with the value as bash has it; None for what only a run tells, and for arrays."""
        name, operator, *value = node.children
        if name.type != "variable_name":
            raise UnclearError("an element of an array is assigned")
        text = self.word(value[0]) if value else ""
        return None if text is None else f"{self.text(name)}{self.text(operator)}{text}"

    def redirected(self, node: Node) -> None:
        children = list(self.children(node))
        extra = tuple(word for child in children if child.type.endswith("_redirect") for word in self.redirect(child))
        if extra and children[0].type != "command":
            raise UnclearError("words follow a redirection")
        for child in children:
            if not child.type.endswith("_redirect"):
                self.walk(child, extra)

    def redirect(self, node: Node) -> tuple[Node, ...]:
        """Notes a redirection. The grammar takes the words after it for further targets; they are returned."""
        children = list(self.children(node))
        if node.type != "file_redirect":
            self.redirections.append(None)
            for child in children:
                self.walk(child)
            return ()
        operator = next(self.text(child) for child in children if not child.is_named)
        if any(child.type == "file_descriptor" and not self.text(child).isdecimal() for child in children):
            raise UnclearError("a redirection and a word run into each other")
        targets = [child for child in children if child.is_named and child.type != "file_descriptor"]
        if not targets:
            return ()
        target = self.word(targets[0])
        duplicates = operator in (">&", "<&") and target is not None and target.isascii() and target.isdecimal()
        if not duplicates and target != "/dev/null":
            self.redirections.append(None if target is None or _GLOB & set(target) else target)
        return tuple(targets[1:])

    def word(self, node: Node) -> str | None:
        """What bash makes of this word; None when only a run tells. Commands inside it are noted."""
        text = self.text(node)
        match node.type:
            case "word" | "number" if not node.children:
                return _unquoted(text)
            case "raw_string" if text[0] == text[-1] == "'" and "'" not in text[1:-1]:
                return text[1:-1]
            case "string":
                if {child.type for child in node.children} <= {'"', "string_content"}:
                    return _double_quoted(text[1:-1])
                for child in node.children:
                    self.walk(child)
                return None
            case "concatenation":
                return self.joined(node)
            case kind if kind in _EXPANSIONS:
                self.walk(node)
                return None
        raise UnclearError(f"{node.type.replace('_', ' ')} cannot be judged")

    def joined(self, node: Node) -> str | None:
        if self.text(node) == "{}":
            return "{}"
        if any(left.end_byte != right.start_byte for left, right in pairwise(node.children)):
            raise UnclearError("a word is in pieces")
        parts = [self.word(child) for child in node.children]
        known = "".join(part for part in parts if part is not None)
        globbed = known.startswith("-") and any(c.type == "word" and _GLOB & set(self.text(c)) for c in node.children)
        return None if None in parts or globbed else known

    def children(self, node: Node) -> Iterable[Node]:
        """The children, when nothing but blanks lies between them."""
        for left, right in pairwise(node.children):
            self.blank(left.end_byte, right.start_byte, b" \t" if node.type in _ONE_LINE else b" \t\n")
            if left.end_byte == right.start_byte and node.type == "command" and not right.type.endswith("_redirect"):
                raise UnclearError("two words run into each other")
        return node.children

    def blank(self, start: int, end: int, blanks: bytes = b" \t\n") -> None:
        if self.source[start:end].replace(b"\\\n", b"").strip(blanks):
            raise UnclearError("it cannot be read with certainty")

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise UnclearError("it is nested too deeply")

    def text(self, node: Node) -> str:
        return self.source[node.start_byte : node.end_byte].decode("utf-8", "replace")


def _refuse_characters(line: str) -> None:
    """Characters that grammar and bash take differently, or that hide what they do from a reader."""
    if len(line) > LONGEST:
        raise UnclearError("it is too long to be judged")
    if any(not (char.isprintable() or char in "\t\n") or (char.isspace() and char not in " \t\n") for char in line):
        raise UnclearError("it has invisible characters")
    ends = [index for index in range(len(line)) if line.startswith("\\\n", index)]
    if any(line[max(index - 1, 0)] not in " \t" or line[index + 2 : index + 3] == "#" for index in ends):
        raise UnclearError("a word goes on after a line's end")


def _refuse_program(command: Command) -> None:
    name = command.words[0] if command.words else ""
    if name is None or _GLOB & set(name) or "=" in name:
        raise UnclearError("what it runs is known only when it runs")
    if name in _RESERVED or name in _REDEFINING:
        raise UnclearError(f"{name} changes what other words mean")


def _unquoted(text: str) -> str | None:
    """A bare word without its backslashes; None where braces or a leading glob make other words of it."""
    known = ""
    characters = iter(text)
    for char in characters:
        if char in _METACHARACTERS:
            raise UnclearError("a word holds more than one")
        if char in "{}" or (char in _GLOB and known[:1] in ("", "-")):
            return None
        known += next(characters, "") if char == "\\" else char
    return known


def _double_quoted(text: str) -> str:
    """Between double quotes a backslash quotes four characters only, and joins lines."""
    known = ""
    characters = iter(text)
    for char in characters:
        if char in '"$`':
            raise UnclearError("a quoted word ends early")
        if char == "\\":
            following = next(characters, "")
            known += {"\n": "", **dict.fromkeys('"$`\\', following)}.get(following, "\\" + following)
        else:
            known += char
    return known
