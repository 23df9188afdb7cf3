"""Secrets of the environment: which variables hold one, the environment without them, and text without their values."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping

_NAME = re.compile(
    r"KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|_PASS$|_PWD$|PGPASS|AUTHORIZATION|PRIVATE", re.IGNORECASE
)
_ADDRESS = re.compile(r"\w+://[^/\s:@]*:([^/\s@]+)@")
_SHORTEST = 8
"""A value below this length is not looked for in text: `true` and `1` would be found everywhere."""


def environment(pass_on: Collection[str] = ()) -> dict[str, str]:
    """The environment of this process, less the variables that look like secrets and are not to be passed on."""
    return {name: value for name, value in os.environ.items() if name in pass_on or not _is_secret(name, value)}


class Redactor:
    """Replaces the secrets of an environment in text by `[secret NAME]`; a secret of several lines, line by line."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._names: dict[str, str] = {}
        for name, value in variables.items():
            if _is_secret(name, value):
                address = _ADDRESS.search(value)
                parts = [value, *value.splitlines(), *([address[1]] if address else [])]
                self._names |= {part.strip(): name for part in parts if len(part.strip()) >= _SHORTEST}
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: f"[secret {self._names[found[0]]}]", text)


def _is_secret(name: str, value: str) -> bool:
    return bool(_NAME.search(name) or _ADDRESS.search(value))
