"""The embedded engine: a drop-in for `tinker.ServiceClient` in this process. Needs the extra `local`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from continualcode.errors import MissingExtraError

if TYPE_CHECKING:
    from continualcode.local.sampling import SamplingClient as SamplingClient
    from continualcode.local.service import ServiceClient as ServiceClient
    from continualcode.local.training import TrainingClient as TrainingClient

__all__ = ["SamplingClient", "ServiceClient", "TrainingClient"]

_MODULES = {"SamplingClient": "sampling", "ServiceClient": "service", "TrainingClient": "training"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if find_spec("torch") is None:
        raise MissingExtraError("the embedded engine", "local")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
