"""The layers of HOUSE as a table: a module imports from its own layer or from below, when it is itself imported."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "continualcode"

LAYERS = (
    {"errors", "types", "events", "protocols", "prompts"},
    {"sdpo", "policy", "approval", "tools"},
    {"agent", "decision", "lessons"},
    {"renderers", "backends", "local", "frontends", "testing"},
    {"hookspecs", "plugins", "builtin", "config", "assembly", "checkpoint", "journal", "doctor"},
    {"cli", "__main__"},
)
"""From the bottom."""

PLACES = {
    "torch": {"local"},
    "tinker": {"backends", "local"},
    "transformers": {"local", "renderers"},
    "peft": {"local"},
    "gguf": {"local"},
    "safetensors": {"local"},
    "rich": {"frontends"},
    "prompt_toolkit": {"frontends"},
    "openai_harmony": {"renderers"},
    "pluggy": {"hookspecs", "plugins", "assembly"},
    "pydantic_settings": {"config"},
    "tree_sitter": set(),
}
"""Where, at most, a library is imported when the module is."""

RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    """The module or folder directly under continualcode that a file belongs to; "" is the package itself."""
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if name == "__init__" else name


def imports_of(body):
    """The modules imported when a module is, as dotted names; what only a type checker sees is left out."""
    for node in body:
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                assert node.level == 0, "imports are absolute"
                if node.module == "continualcode":
                    yield from (f"continualcode.{alias.name}" for alias in node.names)
                else:
                    yield node.module
            case ast.If() if "TYPE_CHECKING" in ast.unparse(node.test):
                yield from imports_of(node.orelse)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                pass
            case _:
                for field in ("body", "orelse", "finalbody", "handlers"):
                    yield from imports_of(getattr(node, field, []))


def faults_of(path, source):
    own = part_of(path)
    for name in imports_of(ast.parse(source).body):
        top, _, rest = name.partition(".")
        if top in PLACES and own not in PLACES[top]:
            yield f"{own} imports {name}, which only {sorted(PLACES[top])} may"
        other = rest.partition(".")[0]
        if top == "continualcode" and own and RANK.get(other, -1) > RANK[own]:
            yield f"{own} imports {name} from a layer above"


def test_every_part_of_the_package_has_a_layer():
    assert {part_of(path) for path in MODULES} - {""} == set(RANK)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_and_libraries_stay_in_their_places(path):
    assert list(faults_of(path, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("types", "from continualcode.agent import Agent"),
        ("agent", "if True:\n    import continualcode.cli"),
        ("sdpo/trainer", "try:\n    import torch\nexcept ImportError:\n    torch = None"),
        ("agent", "class A:\n    from rich.text import Text"),
        ("policy", "from continualcode import config"),
    ],
)
def test_the_test_sees_what_it_forbids(part, source):
    assert len(list(faults_of(PACKAGE / f"{part}.py", source))) == 1


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("types", "if TYPE_CHECKING:\n    from continualcode.agent import Agent"),
        ("builtin", "def connect():\n    import tinker"),
        ("cli", "from continualcode import __version__"),
        ("local/engine", "import torch"),
    ],
)
def test_the_test_lets_pass_what_it_should(part, source):
    assert list(faults_of(PACKAGE / f"{part}.py", source)) == []
