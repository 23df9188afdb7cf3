"""The fixed texts of the terminal: help, commands, ready-made corrections. Knows nothing of how they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A ready-made correction: a few words for the key's label, and the reason the model is taught."""

    label: str
    reason: str


SHORTCUTS = (
    Shortcut("wrong file", "Wrong file: find the right one with glob or grep first."),
    Shortcut("read first", "Read the file before changing it."),
    Shortcut("edit_lines", "Use edit_lines; don't overwrite the file."),
    Shortcut("tests first", "Run the tests first."),
)

COMMANDS: Mapping[str, str] = {
    "/help": "this text",
    "/clear": "a new conversation; what was learned stays",
    "/metrics": "what the session's corrections did",
    "/why": "the last correction token by token: what your reason spoke against",
    "/note": "followed by a remark: goes along with every correction to come",
    "/undo": "take back the last call that changed files, and the conversation since",
    "/redo": "take the last /undo back",
    "/allowed": "what runs without asking; with a number: take that one back",
    "/forget": "take every 'always' back",
    "/quit": "save and leave (also Ctrl-D)",
}

KEYS: Mapping[str, str] = {
    "y": "run the call as shown",
    "n": "deny it; you are asked why, and the model learns from it",
    "e": "change the arguments in $VISUAL or $EDITOR; the difference is learned",
    "a": "run it, and from now on this exact call without asking",
    "t": "run it, and from now on this tool without asking",
    "p": "run it, and from now on bash commands that begin so without asking",
    "v": "show all of a shortened change",
    "1-9": "deny with the ready reason of that number",
    "text, Enter": "deny with this reason",
    "Esc, Ctrl-C": "stop here; nothing runs, nothing is learned",
}

INPUT_KEYS: Mapping[str, str] = {
    "Enter": "send",
    "Alt-Enter, Ctrl-J": "a new line",
    "Ctrl-C": "clear the line; while the model works: stop it",
}

DENIED = "denied by the user"
NOT_A_TERMINAL = (
    "the terminal frontend needs a terminal, and standard input is none; "
    "to drive the agent from a program use frontend=headless"
)
