import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continualcode.errors import WorkspaceError
from continualcode.tools import Workspace
from continualcode.tools.snapshots import KEPT, Snapshots
from continualcode.types import ToolCall

BASH = ToolCall("bash", {"cmd": "make  it\nso"})


@pytest.fixture
def snapshots(workspace: Workspace, tmp_path: Path) -> Snapshots:
    return Snapshots(workspace, tmp_path / "state")


@pytest.fixture
def run(root: Path, snapshots: Snapshots):
    """Does what a call does, between its snapshots: a shell command in the workspace."""

    def do(cmd: str, by: Snapshots = snapshots) -> int:
        made = by.begin(ToolCall("bash", {"cmd": cmd}))
        subprocess.run(["bash", "-ec", cmd], cwd=root, check=True)
        by.finish()
        return made

    return do


def everything(root: Path) -> dict[str, tuple[int, bytes | str]]:
    """Mode and content of all below, however it is hidden; what undo is measured by."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
        found[str(path.relative_to(root))] = (info.st_mode, content)
    return found


def execute(snapshots: Snapshots, sql: str) -> list[tuple[object, ...]]:
    """Does something to what is kept."""
    with closing(sqlite3.connect(snapshots.folder / "undo.sqlite")) as database:
        found = database.execute(sql).fetchall()
        database.commit()
    return found


def fill(root: Path) -> None:
    (root / "bin").mkdir(mode=0o750)
    (root / "bin/run.sh").write_text("echo\n")
    (root / "bin/run.sh").chmod(0o751)
    (root / "image.png").write_bytes(bytes(range(256)))
    (root / "crlf.txt").write_bytes(b"a\r\nb\xff\n")
    (root / "link").symlink_to("bin/run.sh")
    (root / "dangling").symlink_to("/nowhere")
    (root / "folder").symlink_to("bin")
    (root / "empty/deep").mkdir(parents=True)
    (root / os.fsdecode(b"odd\xff\n name")).write_text("x")


@pytest.mark.parametrize(
    "cmd",
    [
        "echo new > bin/run.sh",
        "chmod 600 bin/run.sh; chmod 700 bin",
        "rm -r bin image.png",
        "rm -rf ./*",
        "rmdir empty/deep; mkdir -p a/b/c; echo x > a/b/x",
        "ln -sfn /etc link; rm folder; mkdir folder; echo x > folder/y",
        "rm -r bin; ln -s empty bin",
        "rm -r bin; echo now a file > bin; rm image.png; mkdir image.png; touch image.png/x",
        "mv bin nib; printf 'a\\nb' > crlf.txt; truncate -s 0 image.png",
        "chmod 500 bin; chmod 555 empty",
        "rm od*; cp -r bin/ b2",
    ],
)
def test_whatever_a_command_does_is_taken_back_and_made_again_byte_for_byte(root, snapshots, run, cmd):
    fill(root)
    before = everything(root)
    run(cmd)
    after = everything(root)
    assert after != before
    assert snapshots.undo().call.startswith("bash ")
    assert everything(root) == before
    assert snapshots.undo() is None
    assert snapshots.redo() is not None
    assert everything(root) == after
    assert snapshots.redo() is None
    snapshots.undo()
    assert everything(root) == before


def test_a_folder_that_nothing_may_be_put_into_is_restored_with_what_was_in_it(root, snapshots, run):
    (root / "fixed").mkdir()
    (root / "fixed/a").write_text("1")
    (root / "fixed").chmod(0o555)
    before = everything(root)
    run("chmod 755 fixed; rm -r fixed")
    snapshots.undo()
    assert everything(root) == before


def test_changes_are_taken_back_one_by_one_the_newest_first_and_a_new_one_ends_redoing(root, snapshots, run):
    run("echo 1 > a")
    run("true")
    run("echo 2 > a")
    assert [change.call for change in snapshots.history()] == ["bash echo 1 > a", "bash echo 2 > a"]
    assert snapshots.undo().said == "restored a"
    assert (root / "a").read_text() == "1\n"
    assert snapshots.undo().said == "removed a"
    assert snapshots.redo().said == "restored a"
    run("echo 3 > b")
    assert snapshots.redo() is None
    snapshots.undo()
    snapshots.undo()
    assert os.listdir(root) == []


def test_what_the_user_changes_between_calls_is_never_taken_back(root, snapshots, run):
    run("echo agent > a; echo agent > b")
    (root / "mine").write_text("user")
    (root / "b").write_text("user")
    run("echo agent > c")
    snapshots.undo()
    before = everything(root)
    with pytest.raises(WorkspaceError, match="b has changed since; nothing was taken back"):
        snapshots.undo()
    assert everything(root) == before
    (root / "b").unlink()
    (root / "b").symlink_to("mine")
    with pytest.raises(WorkspaceError, match="b has changed since"):
        snapshots.undo()
    (root / "b").unlink()
    snapshots.undo()
    assert os.listdir(root) == ["mine"]


def test_a_folder_a_call_made_stays_when_the_user_has_put_something_into_it(root, snapshots, run):
    run("mkdir new; echo x > new/theirs")
    (root / "new/mine").write_text("y")
    snapshots.undo()
    assert everything(root).keys() == {"new", "new/mine"}


def test_nothing_is_restored_through_a_symlink_that_leads_away(root, snapshots, run, tmp_path):
    (root / "d").mkdir()
    (root / "d/x").write_text("secret")
    run("rm d/x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "d").rmdir()
    (root / "d").symlink_to(outside)
    with pytest.raises(WorkspaceError, match="through a symlink"):
        snapshots.undo()
    assert os.listdir(outside) == []


def test_changes_outlive_the_session(root, workspace, tmp_path, run):
    run("echo 1 > a")
    later = Snapshots(workspace, tmp_path / "state")
    assert (later.recovered, [change.call for change in later.history()]) == ((), ["bash echo 1 > a"])
    later.undo()
    assert not (root / "a").exists()
    Snapshots(workspace, tmp_path / "state").redo()
    assert (root / "a").read_text() == "1\n"


def test_what_an_interrupted_call_had_done_is_taken_back_as_far_as_it_came(root, snapshots, run):
    snapshots.begin(BASH)
    (root / "half").write_text("x")
    (change,) = snapshots.history()
    assert (change.call, change.interrupted) == ("bash make it so", True)
    snapshots.undo()
    assert os.listdir(root) == []


@pytest.fixture
def die(root: Path, workspace: Workspace, tmp_path: Path):
    """A process that begins a call, does the command in its place, and is gone."""

    def run(cmd: str) -> None:
        dying = (
            "import os, pathlib, subprocess, sys\n"
            "from continualcode.tools.snapshots import Snapshots, ToolCall, Workspace\n"
            "Snapshots(Workspace('.'), pathlib.Path(sys.argv[1])).begin(ToolCall('bash', {'cmd': 'make it'}))\n"
            "subprocess.run(['bash', '-c', sys.argv[2]], check=True)\n"
            "os._exit(0)\n"
        )
        subprocess.run([sys.executable, "-c", dying, tmp_path / "state", cmd], cwd=root, check=True)

    return run


def test_a_call_whose_process_died_is_recovered_by_the_next_and_a_living_one_is_left_alone(
    root, workspace, tmp_path, die
):
    (root / "a").write_text("1")
    die("echo 2 > a")
    first = Snapshots(workspace, tmp_path / "state")
    (change,) = first.recovered
    assert (change.call, change.said, change.interrupted) == ("bash make it", "restored a", True)
    first.begin(BASH)
    (root / "b").write_text("3")
    assert Snapshots(workspace, tmp_path / "state").recovered == ()
    first.finish()
    first.undo()
    first.undo()
    assert everything(root) == {"a": (stat.S_IFREG | 0o644, b"1")}


def test_what_a_write_had_only_begun_when_its_process_died_is_cleared_away(root, workspace, tmp_path, die):
    (root / "a").write_text("1")
    before = everything(root)
    die(f"mkdir -p new/deep; echo hal > new/deep/.continualcode-{'0' * 16}.tmp")
    assert Snapshots(workspace, tmp_path / "state").recovered == ()
    assert everything(root) == before


@pytest.mark.parametrize("half", ["rm b", "rm b; echo 1 > a", f"echo hal > .continualcode-{'0' * 16}.tmp"])
def test_an_undo_that_the_process_did_not_live_to_complete_is_completed(
    root, workspace, tmp_path, run, snapshots, half
):
    (root / "a").write_text("1\n")
    before = everything(root)
    run("echo 2 > a; echo 2 > b; rm -f c")
    after = everything(root)
    execute(snapshots, "update calls set state = 'to undone' where state = 'done'")
    subprocess.run(["bash", "-c", half], cwd=root, check=True)
    later = Snapshots(workspace, tmp_path / "state")
    assert everything(root) == before
    later.redo()
    assert everything(root) == after


def test_an_undo_that_cannot_be_completed_any_more_can_be_tried_again(root, workspace, tmp_path, run, snapshots):
    run("echo 2 > a")
    execute(snapshots, "update calls set state = 'to undone' where state = 'done'")
    (root / "a").write_text("by hand")
    later = Snapshots(workspace, tmp_path / "state")
    with pytest.raises(WorkspaceError, match="a has changed since"):
        later.undo()
    (root / "a").write_text("2\n")
    later.undo()
    assert os.listdir(root) == []


def test_a_damaged_content_is_never_put_in_place_of_a_file(root, snapshots, run):
    (root / "a").write_text("1\n")
    run("echo 2 > a")
    execute(snapshots, "update contents set data = x'00'")
    with pytest.raises(WorkspaceError, match="is damaged"):
        snapshots.undo()
    assert (root / "a").read_text() == "2\n"


def test_small_ignored_files_and_folders_are_covered_large_ones_are_named(root, snapshots, run):
    (root / ".git").mkdir()
    (root / ".gitignore").write_text("*.log\n.env\nbuild/\nnode_modules/\n")
    for folder, count in (("build", 3), ("node_modules", 300)):
        (root / folder).mkdir()
        for number in range(count):
            (root / folder / str(number)).write_text(folder)
    (root / ".env").write_text("KEY=1")
    (root / "large.log").write_bytes(bytes(2**21))
    (root / "data.bin").write_bytes(bytes(2**21))
    run("rm -r .env build node_modules large.log data.bin; echo x > .git/config")
    change = snapshots.undo()
    assert change.left_out == ("large.log", "node_modules")
    assert (root / ".env").read_text() == "KEY=1"
    assert len(os.listdir(root / "build")) == 3
    assert (root / "data.bin").stat().st_size == 2**21
    assert not (root / "node_modules").exists()
    assert (root / ".git/config").exists()


def test_a_folder_that_grows_beyond_what_is_kept_is_not_taken_for_deleted(root, snapshots, run):
    (root / ".git").mkdir()
    (root / ".gitignore").write_text("cache\n")
    run("mkdir cache; echo x > cache/a")
    run("touch cache/{1..300}; echo y > b")
    assert snapshots.undo().said == "removed b"
    assert len(os.listdir(root / "cache")) == 301


def test_a_repository_inside_and_git_itself_make_no_difference(root, snapshots, run):
    if shutil.which("git") is None:
        pytest.skip("no git")
    subprocess.run(["git", "init", "-q", root], check=True)
    subprocess.run(["git", "init", "-q", root / "inner"], check=True)
    (root / ".gitattributes").write_text("* text=auto eol=lf ident\n")
    (root / "inner/a").write_bytes(b"$Id$\r\n")
    run("rm inner/a; git add .gitattributes; git branch -m other")
    repository = everything(root / ".git")
    snapshots.undo()
    assert (root / "inner/a").read_bytes() == b"$Id$\r\n"
    assert everything(root / ".git") == repository


def test_what_is_kept_is_for_the_user_only_and_never_part_of_a_snapshot(root, workspace, run):
    inside = Snapshots(workspace, root / "state")
    (root / "a").write_text("1")
    run("echo 2 > a; echo event >> state/journal", inside)
    inside.undo()
    assert (root / "state/journal").read_text() == "event\n"
    assert stat.S_IMODE(inside.folder.stat().st_mode) == 0o700


def test_it_may_even_be_kept_in_the_workspace_itself(root, workspace, run):
    inside = Snapshots(workspace, root)
    run("echo 1 > a", inside)
    run("echo 2 > a", inside)
    assert inside.undo().changes.keys() == {"a"}
    assert (root / "a").read_text() == "1\n"


def test_a_call_does_not_run_when_nothing_can_be_kept(root, workspace, tmp_path):
    (tmp_path / "state").write_text("a file where a folder should be")
    with pytest.raises(WorkspaceError, match="not run: no snapshot can be kept"):
        Snapshots(workspace, tmp_path / "state").begin(BASH)


def test_a_change_right_after_a_snapshot_is_seen_though_size_and_time_are_the_same(root, snapshots, run):
    for number in range(20):
        (root / "a").write_text("0")
        run(f"printf {number % 9 + 1} > a")
        snapshots.undo()
        assert (root / "a").read_text() == "0"


def test_an_unchanged_file_is_not_read_again(root, workspace, snapshots, run, tmp_path):
    (root / "a").write_text("1")
    os.utime(root / "a", ns=(1, 1))
    time.sleep(2.1)
    run("true")
    assert len(execute(snapshots, "select digest from contents")) == 1
    execute(snapshots, "delete from contents")
    run("true")
    run("true", Snapshots(workspace, tmp_path / "state"))
    assert execute(snapshots, "select digest from contents") == []


def test_a_snapshot_of_a_large_workspace_that_has_not_changed_is_cheap(root, snapshots):
    (root / ".git").mkdir()
    (root / ".gitignore").write_text("*.log\nbuild/\n")
    for number in range(2000):
        path = root / f"{number % 100}" / f"{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d\n" % number * 500)
    for _ in range(2):
        snapshots.begin(BASH)
        snapshots.finish()
        time.sleep(2.1)
    seconds = []
    for _ in range(5):
        began = time.process_time()
        snapshots.begin(BASH)
        seconds.append(time.process_time() - began)
        snapshots.finish()
    assert min(seconds) < 0.1


def test_only_so_many_changes_are_kept_and_only_what_they_need(root, workspace, snapshots, run):
    (root / "same").write_text("same")
    for number in range(KEPT + 5):
        snapshots.begin(BASH)
        (root / "a").write_text(str(number))
        snapshots.finish()
    assert len(snapshots.history()) == KEPT
    assert len(execute(snapshots, "select digest from contents")) == KEPT + 2
    while snapshots.undo():
        pass
    assert everything(root).keys() == {"a", "same"}
    assert (root / "a").read_text() == "4"


NAMES = ["a", "b", "a/x", "a/y", "a/x/z", "b/x"]
STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "mkdir", "link", "rm", "chmod"]), st.sampled_from(NAMES)), max_size=6
)


@given(st.lists(STEPS, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_series_of_changes_can_be_walked_back_and_forth(tmp_path_factory, calls):
    folder = tmp_path_factory.mktemp("walk")
    (folder / "work").mkdir()
    root, snapshots = folder / "work", Snapshots(Workspace(folder / "work"), folder / "state")
    states = [everything(root)]
    for steps in calls:
        snapshots.begin(BASH)
        for step, name in steps:
            subject_to(root, step, name)
        snapshots.finish()
        if everything(root) != states[-1]:
            states.append(everything(root))
    for state in reversed(states[:-1]):
        assert snapshots.undo() is not None
        assert everything(root) == state
    assert snapshots.undo() is None
    for state in states[1:]:
        assert snapshots.redo() is not None
        assert everything(root) == state
    shutil.rmtree(folder)


def subject_to(root: Path, step: str, name: str) -> None:
    path = root / name
    try:
        match step:
            case "write":
                path.write_text(f"{time.time_ns()}")
            case "mkdir":
                path.mkdir(parents=True)
            case "link":
                path.symlink_to("b")
            case "rm" if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            case "rm":
                path.unlink()
            case "chmod":
                path.chmod(0o700, follow_symlinks=True)
    except OSError:
        pass


def test_a_damaged_file_of_ours_is_named_and_nothing_runs(workspace, tmp_path, snapshots):
    snapshots.folder.mkdir(parents=True)
    (snapshots.folder / "undo.sqlite").write_bytes(b"no database at all" * 1000)
    for use in (
        snapshots.undo,
        snapshots.redo,
        lambda: snapshots.begin(BASH),
        lambda: Snapshots(workspace, tmp_path / "state"),
    ):
        with pytest.raises(WorkspaceError, match=r"no snapshot can be kept in .*undo.sqlite: file is not a database"):
            use()


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_what_cannot_be_read_is_left_out(root, snapshots, run):
    (root / "secret").write_text("x")
    (root / "secret").chmod(0)
    run("echo 1 > a")
    assert snapshots.undo().left_out == ("secret",)
