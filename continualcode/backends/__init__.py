"""Backends: models whose weights can be trained, all reached through the Tinker client's interface.

Names load on first use, because the Tinker client takes seconds to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from continualcode.backends.doctor import Finding, Report, diagnose
    from continualcode.backends.tinker import TinkerBackend, TinkerSampler

__all__ = ["Finding", "Report", "TinkerBackend", "TinkerSampler", "diagnose"]

_MODULE_OF = {
    "Finding": "continualcode.backends.doctor",
    "Report": "continualcode.backends.doctor",
    "TinkerBackend": "continualcode.backends.tinker",
    "TinkerSampler": "continualcode.backends.tinker",
    "diagnose": "continualcode.backends.doctor",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'continualcode.backends' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
