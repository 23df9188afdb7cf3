"""The benchmarks' package of programming problems, imported as the scripts in benchmarks/ import it."""

import importlib
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def livecode():
    """Imports a module of it: `livecode("sources")`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        yield lambda name: importlib.import_module(f"livecode.{name}")
