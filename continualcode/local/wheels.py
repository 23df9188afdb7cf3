"""Fetches one file of a package index the way pip is configured to; knows nothing of what is inside it."""

from __future__ import annotations

import base64
import configparser
import hashlib
import importlib.util
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPResponse
from importlib.metadata import version
from pathlib import Path
from typing import IO, TypeAlias
from urllib.error import URLError
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

from continualcode.errors import BackendError, BackendUnavailableError

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how far it is and how far it goes; both in bytes, 0 of 0 when that is unknown."""

PYPI = "https://pypi.org/simple"
CHUNK = 1 << 18
IDLE_SECONDS = 60
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of a package index, known by its checksum."""

    project: str
    version: str
    filename: str
    sha256: str


def fetch(wheel: Wheel, folder: Path, progress: Progress) -> Path:
    """Downloads the wheel, without its dependencies, into `folder` and returns its path there.

    Goes through pip when this Python has it, so that mirrors, certificates and find-links apply; else asks the
    index of pip's own settings itself. Raises BackendUnavailableError when it cannot be had, BackendError when
    what came is not the file known by that checksum.
    """
    way = _fetch_with_pip if importlib.util.find_spec("pip") else fetch_from_index
    path = way(wheel, folder, progress)
    check(path, wheel.sha256)
    return path


def check(path: Path, sha256: str) -> None:
    """Raises BackendError unless the file has this checksum."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise BackendError(f"{path} is damaged or not the expected file: sha256 {found}, expected {sha256}")


def fetch_from_index(wheel: Wheel, folder: Path, progress: Progress, environ: Mapping[str, str] = os.environ) -> Path:
    """The same download over the simple API (PEP 503 and 691) of the configured index, with the standard library only."""
    index = index_url(environ)
    page_url = f"{index.rstrip('/')}/{wheel.project}/"
    doing = f"downloading {wheel.project} {wheel.version}"
    target = folder / wheel.filename
    try:
        with _open(page_url, environ, accept=_ACCEPT) as page:
            links = _links(page.read(), page.headers.get_content_type(), page.geturl())
        if wheel.filename not in links:
            raise BackendUnavailableError(f"{page_url} lists {len(links)} files, but not {wheel.filename}")
        with _open(links[wheel.filename], environ) as source, target.open("wb") as sink:
            _copy(source, sink, int(source.headers.get("Content-Length") or 0), lambda *at: progress(doing, *at))
    except (URLError, TimeoutError, ConnectionError) as error:
        raise BackendUnavailableError(f"could not download {wheel.filename} from {page_url}: {error}") from error
    return target


def index_url(environ: Mapping[str, str] = os.environ) -> str:
    """The package index that pip or uv would ask: environment first, then pip's configuration files, then pypi.org."""
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if environ.get(name):
            return environ[name]
    config = configparser.RawConfigParser()
    home = Path(environ.get("HOME") or Path.home())
    named = environ.get("PIP_CONFIG_FILE")
    config.read(
        [
            "/etc/pip.conf",
            home / ".pip" / "pip.conf",
            Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf",
            Path(environ.get("APPDATA") or home) / "pip" / "pip.ini",
            Path(sys.prefix) / "pip.conf",
            *([named] if named else []),
        ]
    )
    for section in ("download", "global"):
        if config.has_option(section, "index-url"):
            return config.get(section, "index-url").strip()
    return PYPI


def _fetch_with_pip(wheel: Wheel, folder: Path, progress: Progress) -> Path:
    doing = f"downloading {wheel.project} {wheel.version}"
    requirement = f"{wheel.project}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", _pip_progress_bar(), "-d", str(folder), requirement]
    progress(doing, 0, 0)
    said = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            if at := re.fullmatch(r"Progress (\d+) of (\d+)\s*", line):
                progress(doing, int(at[1]), int(at[2]))
            else:
                said.append(line.rstrip())
    path = folder / wheel.filename
    if pip.returncode or not path.is_file():
        raise BackendUnavailableError(
            f"could not download {requirement}: `{' '.join(command)}` said\n  " + "\n  ".join(said[-8:])
        )
    return path


def _pip_progress_bar() -> str:
    """`raw` prints one parseable line per chunk; pip has it since 24.1."""
    major, minor = (int(part) for part in re.findall(r"\d+", version("pip") + ".0")[:2])
    return "raw" if (major, minor) >= (24, 1) else "off"


def _open(url: str, environ: Mapping[str, str], accept: str = "*/*") -> HTTPResponse:
    parts = urlsplit(url)
    headers = {"Accept": accept, "Accept-Encoding": "identity", "User-Agent": "continualcode"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    certificates = environ.get("PIP_CERT") or environ.get("SSL_CERT_FILE") or environ.get("REQUESTS_CA_BUNDLE")
    context = ssl.create_default_context(cafile=certificates)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    answer = opener.open(urllib.request.Request(url, headers=headers), timeout=IDLE_SECONDS)
    assert isinstance(answer, HTTPResponse)
    return answer


def _links(page: bytes, content_type: str, base: str) -> dict[str, str]:
    """file name -> absolute URL, of one project's page of a simple index."""
    if content_type.endswith("json"):
        return {file["filename"]: urljoin(base, file["url"]) for file in json.loads(page)["files"]}
    parser = _Anchors()
    parser.feed(page.decode("utf-8", "replace"))
    urls = [urldefrag(urljoin(base, href)).url for href in parser.hrefs]
    return {unquote(urlsplit(url).path.rpartition("/")[2]): url for url in urls}


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hrefs += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _copy(source: IO[bytes] | HTTPResponse, sink: IO[bytes], total: int, at: Callable[[int, int], None]) -> None:
    done = 0
    while chunk := source.read(CHUNK):
        sink.write(chunk)
        done += len(chunk)
        at(done, total)
