"""Fixtures shared by all folders: a Tinker server on loopback, the official client to it, and a model that is one matrix."""

import importlib.util
import sys
from pathlib import Path

import pytest


def _module(name):
    """A module of tests/backends by path: test modules cannot import one another under importlib mode."""
    known = f"continualcode_tests_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, Path(__file__).parent / "backends" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[known] = module
        spec.loader.exec_module(module)
    return sys.modules[known]


@pytest.fixture
def bigram():
    """The module of the bigram service: `bigram.BigramService(quirks=[bigram.SHIFTED], futures="concurrent")`."""
    return _module("bigram")


@pytest.fixture
def bigram_service(bigram):
    """Makes bigram services, and closes them."""
    made = []

    def make(*args, **kwargs):
        made.append(bigram.BigramService(*args, **kwargs))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def wire_server(monkeypatch):
    """Puts any object with ServiceClient's interface behind the SDK's wire format: `wire_server(service).url`."""
    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    running = []

    def start(service):
        running.append(_module("wire_server").WireServer(service).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.die()


@pytest.fixture
def official_client(monkeypatch):
    """tinker.ServiceClient to a URL, its background tasks ended with the test."""
    import tinker

    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    made = []

    def connect(url):
        made.append(tinker.ServiceClient(base_url=url, api_key="tml-test"))
        return made[-1]

    yield connect
    for client in made:
        for holder in (client._session_holder, client._rest_holder):
            if holder is not None:
                holder.close()
