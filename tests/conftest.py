"""Fixtures shared by all folders: a Tinker server on loopback, the official client to it, and a machine without settings."""

import asyncio
import gc
import importlib.util
import os
import sys
import warnings
from pathlib import Path

import pytest

# Before torch is loaded: sums over two threads round otherwise than over one, and which it is would depend on the load.
os.environ.setdefault("OMP_NUM_THREADS", "1")


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
                asyncio.run_coroutine_threadsafe(holder.aclose(), holder.get_loop()).result(20)
    made.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def pytest_collection_modifyitems(items):
    """The SDK never closes the connection over which it fetches its configuration."""
    for item in items:
        if "official_client" in item.fixturenames:
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"))


@pytest.fixture
def isolated(monkeypatch, tmp_path):
    """No settings of this machine: empty user folders, a folder `work` to be in. Returns the folder around it."""
    for name in list(os.environ):
        if name.startswith(("CONTINUALCODE_", "TINKER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture
def scripted_plugin():
    """Makes a plug-in that adds backend `scripted`, which is the ScriptedBackend given, and renderer `bytes`."""
    from continualcode import hookimpl
    from continualcode.hookspecs import Connection
    from continualcode.testing import BytesRenderer

    class Scripted:
        def __init__(self, backend):
            self.backend, self.closed = backend, 0

        async def connect(self, config, progress):
            progress("raising the curtain")
            return Connection(self.backend, None, self.close, notes=("a scripted model",))

        async def close(self):
            self.closed += 1

        @hookimpl
        def register_backends(self):
            return {"scripted": self.connect}

        @hookimpl
        def register_renderers(self):
            return {"bytes": lambda tokenizer, model_name: BytesRenderer()}

    return Scripted
