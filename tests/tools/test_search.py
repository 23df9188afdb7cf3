import asyncio
import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continualcode.errors import ToolError
from continualcode.tools import ToolRegistry, Workspace, find_ripgrep, search, search_tools
from continualcode.types import ToolCall

RIPGREP = find_ripgrep()
needs_ripgrep = pytest.mark.skipif(RIPGREP is None, reason="ripgrep is not installed")


@pytest.fixture(params=[pytest.param("ripgrep", marks=needs_ripgrep), "stand-in"])
def find(request, workspace: Workspace):
    """Calls glob or grep with each of the two engines."""
    registry = ToolRegistry(search_tools(workspace, ripgrep=RIPGREP if request.param == "ripgrep" else None))

    async def call(name: str, **arguments):
        return await registry.call(ToolCall(name, arguments))

    return call


def plant(root: Path, files: dict[str, str | bytes]) -> None:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())


TREE: dict[str, str | bytes] = {
    ".git/config": "needle\n",
    ".gitignore": "node_modules/\n*.log\n/build\n!keep.log\n",
    ".github/ci.yml": "needle: 1\n",
    "README.md": "# needle\nnothing\n  a needle, again\n",
    "build/out.txt": "needle\n",
    "keep.log": "needle\n",
    "node_modules/pkg/index.js": "needle\n",
    "src/.gitignore": "generated.py\n",
    "src/app.py": "needle = 1\r\n",
    "src/build/inner.py": "needle\n",
    "src/deep/x.ts": "needle\n",
    "src/generated.py": "needle\n",
    "src/trace.log": "needle\n",
    "picture.bin": b"needle\0\1\n",
}
EXPECTED = """\
.github/ci.yml:1:needle: 1
README.md:1:# needle
README.md:3:  a needle, again
keep.log:1:needle
src/app.py:1:needle = 1
src/build/inner.py:1:needle
src/deep/x.ts:1:needle"""


async def test_grep_honours_gitignore_sees_dotfiles_but_never_git_and_skips_binaries(root: Path, find):
    plant(root, TREE)
    result = await find("grep", pat="needle")
    assert (result.output, result.ok) == (EXPECTED, True)


async def test_gitignore_counts_without_a_repository_too(root: Path, find):
    plant(root, {path: content for path, content in TREE.items() if not path.startswith(".git/")})
    assert (await find("grep", pat="needle")).output == EXPECTED
    assert (await find("glob", pat="**/*.log")).output == "keep.log"
    assert (await find("glob", pat="**", path="src/deep")).output == "src/deep/x.ts"
    assert (await find("glob", pat="*.py", path="src")).output == "src/app.py"


async def test_what_is_ignored_above_the_search_counts_and_above_the_workspace_only_in_its_repository(
    tmp_path: Path, root: Path, find
):
    (tmp_path / ".gitignore").write_text("*.py\n")
    plant(root, {".gitignore": "*.log\n", "src/a.py": "x", "src/a.log": "x", "src/a.ts": "x"})
    assert (await find("glob", pat="*", path="src")).output == "src/a.py\nsrc/a.ts"
    (tmp_path / ".git").mkdir()
    assert (await find("glob", pat="*", path="src")).output == "src/a.ts"
    (root / ".git").mkdir()
    assert (await find("glob", pat="*", path="src")).output == "src/a.py\nsrc/a.ts"


async def test_an_ignored_folder_or_file_can_be_searched_by_name(root: Path, find):
    plant(root, TREE)
    assert (await find("grep", pat="needle", path="node_modules")).output == "node_modules/pkg/index.js:1:needle"
    assert (await find("grep", pat="needle", path="node_modules/pkg")).output == "node_modules/pkg/index.js:1:needle"
    assert (await find("grep", pat="needle", path="src/trace.log")).output == "src/trace.log:1:needle"


async def test_a_folder_that_ignores_itself_can_be_searched_by_name(root: Path, find):
    plant(root, {".git/HEAD": "", ".venv/.gitignore": "*\n", ".venv/lib/site.py": "needle\n"})
    assert (await find("grep", pat="needle")).output == "no line matches needle"
    assert (await find("grep", pat="needle", path=".venv/lib")).output == ".venv/lib/site.py:1:needle"


async def test_a_repository_inside_a_repository_has_its_own_rules(root: Path, find):
    plant(root, {".git/HEAD": "", ".gitignore": "*.log\n", "inner/.git/HEAD": "", "inner/a.log": "x", "b.log": "x"})
    assert (await find("glob", pat="**/*.log")).output == "inner/a.log"


async def test_a_rule_for_folders_leaves_files_alone(root: Path, find):
    plant(root, {".gitignore": "build/\n", "src/build": "needle\n", "build/x": "needle\n"})
    assert (await find("grep", pat="needle")).output == "src/build:1:needle"


async def test_one_file_can_be_searched_and_matched(root: Path, find):
    plant(root, TREE)
    assert (await find("grep", pat="need", path="README.md")).output.count("\n") == 1
    assert (await find("glob", pat="*.md", path="README.md")).output == "README.md"


async def test_results_are_relative_to_the_workspace_however_the_path_is_given(root: Path, find):
    plant(root, TREE)
    for path in ("src/deep", "./src/deep/", str(root / "src" / "deep")):
        assert (await find("grep", pat="needle", path=path)).output == "src/deep/x.ts:1:needle"


async def test_what_is_cut_is_said(root: Path, find):
    plant(root, {f"d{n // 100}/f{n:03}.txt": "hit\nhit\n" for n in range(400)})
    found = (await find("grep", pat="hit")).output.splitlines()
    assert found[0] == "d0/f000.txt:1:hit"
    assert found[199] == "d0/f099.txt:2:hit"
    assert found[200:] == ["... 600 more matches; narrow the pattern or the path"]
    names = (await find("glob", pat="**/*.txt")).output.splitlines()
    assert names[199:] == ["d1/f199.txt", "... 200 more; narrow the pattern"]


async def test_long_lines_are_clipped_and_the_output_is_bounded(root: Path, find):
    plant(root, {f"f{n:03}": f"hit {'x' * 100_000}\n" for n in range(100)})
    output = (await find("grep", pat="^hit")).output
    assert output.splitlines()[0] == f"f000:1:hit {'x' * 296}..."
    assert len(output) < search.MAX_CHARACTERS + 100
    assert output.endswith("... 23 more matches; narrow the pattern or the path")


async def test_a_pattern_cannot_become_an_option(root: Path, find):
    plant(root, {"a": "--files\n-v\n", "-e": "--files\n"})
    assert (await find("grep", pat="--files")).output == "-e:1:--files\na:1:--files"
    assert (await find("grep", pat="-v")).output == "a:2:-v"
    assert (await find("grep", pat="--files", path="-e")).output == "-e:1:--files"
    assert (await find("glob", pat="-*")).output == "-e"


async def test_lines_end_where_they_should(root: Path, find):
    plant(root, {"crlf": b"one\r\ntwo\r\n", "bom": b"\xef\xbb\xbfone\n", "bytes": b"\xff one\n", "open": b"one"})
    assert (await find("grep", pat="^one$")).output == "bom:1:one\ncrlf:1:one\nopen:1:one"
    assert (await find("grep", pat="one$")).output == "bom:1:one\nbytes:1:\ufffd one\ncrlf:1:one\nopen:1:one"


async def test_look_around_works_with_either_engine(root: Path, find):
    plant(root, {"a": "foobar\nfoobaz\n"})
    assert (await find("grep", pat="foo(?=baz)")).output == "a:2:foobaz"
    assert (await find("grep", pat=r"(o)\1ba[rz]")).output == "a:1:foobar\na:2:foobaz"


async def test_nothing_found_and_wrong_patterns_are_said(root: Path, find):
    plant(root, TREE)
    assert (await find("grep", pat="no such thing")).output == "no line matches no such thing"
    assert (await find("glob", pat="*.ts")).output == "no files match *.ts; **/ searches in all folders below"
    for name, arguments, said in [
        ("grep", {"pat": "(open"}, "not a valid regular expression"),
        ("grep", {"pat": ""}, "not empty"),
        ("grep", {"pat": "a\nb"}, "without line breaks"),
        ("grep", {"pat": "x", "path": "nowhere"}, "no file or folder nowhere"),
        ("grep", {"pat": "x", "path": ".git"}, "belongs to git"),
        ("glob", {"pat": "../*"}, "relative to path"),
        ("glob", {"pat": "/etc/*"}, "relative to path"),
        ("glob", {"pat": "{a,b}" * 12}, "too many patterns"),
        ("glob", {"pat": "**/[a"}, "no pattern"),
    ]:
        result = await find(name, **arguments)
        assert not result.ok
        assert said in result.output


async def test_searches_stay_in_the_workspace(tmp_path: Path, root: Path, find):
    (tmp_path / "secret.txt").write_text("needle\n")
    (root / "out").symlink_to(tmp_path)
    (root / "secret").symlink_to(tmp_path / "secret.txt")
    for path in ("..", "out", "secret", str(tmp_path), "~"):
        for name in ("grep", "glob"):
            assert not (await find(name, pat="needle", path=path)).ok
    assert (await find("grep", pat="needle")).output == "no line matches needle"
    assert (await find("glob", pat="**")).output == "no files match **"


async def test_two_symlink_loops_do_not_matter(root: Path, find):
    plant(root, {"a/b/x.txt": "needle\n"})
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "b" / "round").symlink_to(root / "a")
    assert (await find("glob", pat="**/*.txt")).output == "a/b/x.txt"
    assert (await find("grep", pat="needle")).output == "a/b/x.txt:1:needle"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ".hidden a.py src/"),
        ("**", ".hidden a.py src/b.py src/deep/c.ts src/deep/d.py"),
        ("**/*.py", "a.py src/b.py src/deep/d.py"),
        ("src/**/*.py", "src/b.py src/deep/d.py"),
        ("src/*", "src/b.py src/deep/"),
        ("./src/*.py", "src/b.py"),
        ("**/deep/*", "src/deep/c.ts src/deep/d.py"),
        ("**/*.{ts,tsx}", "src/deep/c.ts"),
        ("{a,src/b}.py", "a.py src/b.py"),
        ("**/[cd].??", "src/deep/c.ts src/deep/d.py"),
        ("src/", "src/"),
        ("**/{a,b}.py", "a.py src/b.py"),
        ("**/*.p?", "a.py src/b.py src/deep/d.py"),
        ("src/**", "src/b.py src/deep/c.ts src/deep/d.py"),
        ("**/.*", ".hidden"),
    ],
)
async def test_glob_patterns(root: Path, find, pattern, expected):
    plant(root, dict.fromkeys((".hidden", "a.py", "src/b.py", "src/deep/c.ts", "src/deep/d.py"), ""))
    assert (await find("glob", pat=pattern)).output.split() == expected.split()


async def test_a_named_kind_of_file_is_still_ignored_where_gitignore_says_so(root: Path, find):
    plant(root, TREE)
    assert (await find("glob", pat="**/*.py")).output == "src/app.py\nsrc/build/inner.py"
    assert (await find("glob", pat="**/*.log")).output == "keep.log"


async def test_binary_files_among_many_matches_are_neither_shown_nor_counted(root: Path, find):
    plant(root, {f"f{n:03}": b"hit\0\n" * 50 if n % 4 == 0 else b"hit\n" * 50 for n in range(80)})
    found = (await find("grep", pat="hit")).output.splitlines()
    assert {line.split(":")[0] for line in found[:200]} == {"f001", "f002", "f003", "f005"}
    plant(root, {f"f{n:03}": b"" for n in range(6, 80)})
    assert (await find("grep", pat="hit")).output.splitlines() == found[:200]


async def test_names_with_newlines_and_stray_bytes_break_nothing(root: Path, find):
    (root / "two\nlines").write_text("needle\n")
    (root / os.fsdecode(b"\xff.txt")).write_text("needle\n")
    assert (await find("grep", pat="needle")).output == "two\nlines:1:needle\n\ufffd.txt:1:needle"
    assert (await find("glob", pat="*.txt")).output == "\ufffd.txt"
    assert (await find("glob", pat="**/*.txt")).output == "\ufffd.txt"
    assert (await find("glob", pat="**/two*")).output == "two\nlines"


async def test_a_catastrophic_pattern_is_stopped(root: Path, workspace: Workspace, monkeypatch):
    plant(root, {"a": "a" * 60 + "b\n"})
    monkeypatch.setattr(search, "SEARCH_SECONDS", 0.5)
    grep = ToolRegistry(search_tools(workspace, ripgrep=None))
    began = time.monotonic()
    result = await grep.call(ToolCall("grep", {"pat": "(a+)+$"}))
    assert (result.output, result.ok) == (
        "the search took more than 0.5 seconds; narrow the pattern or the path",
        False,
    )
    assert time.monotonic() - began < 5


async def test_a_cancelled_search_ends_its_process(root: Path, workspace: Workspace):
    plant(root, {"a": "a" * 60 + "b\n"})
    _, grep = search_tools(workspace, ripgrep=None)
    began = time.monotonic()
    searching = asyncio.create_task(grep(pat="(a+)+$"))
    await asyncio.sleep(0.3)
    searching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await searching
    assert time.monotonic() - began < 5


NAMES = st.sampled_from(["a", "b", "log", "x.py", "y.log", ".hid", "build", "src"])
COMMON = ["*.log", "build/", "/src", "!a", "a/b", "**/x.py", "*", "!*.py", "!*/", "b/*", "!b/a", "/a/**", "a/", "[ab]"]
RARE = ["\\#x", "# c", "*.l?g", "src/**/a", "a**", "**/", "[!a]", "[]-]x", "\\!a", "a\\", "b?", "a/*/b", "x.py ", "//"]
PATTERNS = st.sampled_from([*COMMON, *RARE])
PATHS = st.lists(NAMES, min_size=1, max_size=4)


@needs_ripgrep
@given(
    files=st.lists(PATHS, max_size=10),
    ignores=st.lists(st.tuples(PATHS, st.lists(PATTERNS)), max_size=4),
    data=st.data(),
)
@settings(max_examples=20, deadline=None)
def test_both_engines_find_the_same_in_any_tree(files, ignores, data):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if data.draw(st.booleans()):
            (root / ".git").mkdir()
        for parts in [*files, *((*parts[:-1], ".gitignore") for parts, _ in ignores)]:
            path = root.joinpath(*parts)
            if all(not parent.is_file() for parent in path.parents) and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("needle\n")
        for parts, patterns in ignores:
            place = root.joinpath(*parts[:-1], ".gitignore")
            if place.exists():
                place.write_text("\n".join(patterns) + "\n")
        starts = [".", *(str(path.relative_to(root)) for path in sorted(root.rglob("*")) if ".git" not in path.parts)]
        start = data.draw(st.sampled_from(starts))
        workspace = Workspace(root)

        async def found(ripgrep: str | None) -> list[str]:
            glob, grep = search_tools(workspace, ripgrep=ripgrep)
            return [(await glob(pat="**", path=start)).output, (await grep(pat="needle$", path=start)).output]

        assert asyncio.run(found(RIPGREP)) == asyncio.run(found(None))


def test_a_missing_ripgrep_is_no_error(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("sysconfig.get_path", lambda name: "/nowhere")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert find_ripgrep() is None


async def test_an_engine_that_fails_is_reported(root: Path, workspace: Workspace):
    glob, _ = search_tools(workspace, ripgrep="/bin/ls")
    with pytest.raises(ToolError, match="the search failed"):
        await glob(pat="*")
