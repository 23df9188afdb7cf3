"""The terminal frontend: rich for what is shown, prompt_toolkit for what is typed."""

from continualcode.frontends.terminal.app import Terminal

__all__ = ["Terminal"]
