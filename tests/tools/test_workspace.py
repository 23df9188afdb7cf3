import os
import stat
from pathlib import Path

import pytest

from continualcode.errors import ConfigError, WorkspaceError
from continualcode.tools import Workspace


def test_the_root_must_be_a_folder_that_exists(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(ConfigError, match="folder that exists"):
            Workspace(root)


def test_paths_inside_are_resolved_however_they_are_written(root: Path, workspace: Workspace):
    (root / "a").mkdir()
    for path in ("a/b.txt", "./a//b.txt", "a/../a/b.txt", str(root / "a" / "b.txt"), "a/c/../b.txt"):
        assert workspace.resolve(path) == root.resolve() / "a" / "b.txt"
    assert workspace.resolve(".") == workspace.root
    assert workspace.relative(workspace.resolve("a/b.txt")) == "a/b.txt"


def test_a_root_reached_through_a_symlink_accepts_both_of_its_names(tmp_path: Path, root: Path):
    (tmp_path / "alias").symlink_to(root)
    workspace = Workspace(tmp_path / "alias")
    assert (
        workspace.resolve(str(tmp_path / "alias" / "x")) == workspace.resolve(str(root / "x")) == root.resolve() / "x"
    )


def test_paths_that_leave_the_workspace_are_refused(tmp_path: Path, root: Path, workspace: Workspace, monkeypatch):
    (tmp_path / "outside.txt").write_text("secret")
    (tmp_path / "work-too").mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "file-out").symlink_to(tmp_path / "outside.txt")
    (root / "dangling").symlink_to(tmp_path / "not-yet.txt")
    (root / "chain").symlink_to("file-out")
    monkeypatch.chdir(root)
    for path in (
        "..",
        "../outside.txt",
        "a/../../outside.txt",
        str(tmp_path / "outside.txt"),
        str(tmp_path / "work-too" / "x"),
        "/etc/passwd",
        "out/outside.txt",
        "file-out",
        "dangling",
        "chain",
        "/proc/self/cwd/inside.txt",
        "/proc/self/root/etc/passwd",
        "//etc/passwd",
    ):
        with pytest.raises(WorkspaceError, match="outside the workspace"):
            workspace.resolve(path)
        with pytest.raises(WorkspaceError):
            workspace.write(path, b"x")
        with pytest.raises(WorkspaceError):
            workspace.read(path)
    assert (tmp_path / "outside.txt").read_text() == "secret"
    assert not (tmp_path / "not-yet.txt").exists()
    assert list((tmp_path / "work-too").iterdir()) == []


def test_paths_that_are_no_paths_are_refused(root: Path, workspace: Workspace):
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to("loop")
    for path in ("", "  ", "~", "~/x", "~root/x", "a\0b", "pipe", "loop", "x" * 300, "\ud800"):
        with pytest.raises(WorkspaceError):
            workspace.write(path, b"x")
    assert sorted(item.name for item in root.iterdir()) == ["loop", "pipe"]


def test_a_tilde_never_becomes_a_folder_but_can_be_spelt_out(root: Path, workspace: Workspace):
    with pytest.raises(WorkspaceError, match="not expanded"):
        workspace.write("~/notes", b"x")
    assert list(root.iterdir()) == []
    workspace.write("./~notes", b"x")
    assert (root / "~notes").read_bytes() == b"x"


def test_a_write_replaces_the_file_as_a_whole_and_leaves_nothing_beside_it(root: Path, workspace: Workspace):
    workspace.write("new/deep/file.txt", b"one")
    first = (root / "new/deep/file.txt").stat().st_ino
    with open(root / "new/deep/file.txt", "rb") as reader:
        workspace.write("new/deep/file.txt", b"two")
        assert reader.read() == b"one"
    assert (root / "new/deep/file.txt").read_bytes() == b"two" == workspace.read("new/deep/file.txt")
    assert (root / "new/deep/file.txt").stat().st_ino != first
    assert [item.name for item in (root / "new/deep").iterdir()] == ["file.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(root: Path, workspace: Workspace, monkeypatch):
    (root / "a").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for path in ("a", "b/c"):
        with pytest.raises(WorkspaceError, match=f"cannot write {path}: No space left"):
            workspace.write(path, b"new")
    assert [item.name for item in root.iterdir()] == ["a"]
    assert (root / "a").read_bytes() == b"old"
    assert workspace.undo() is None


def test_a_write_keeps_the_mode_and_a_new_file_gets_the_usual_one(root: Path, workspace: Workspace):
    (root / "run.sh").write_bytes(b"echo")
    (root / "run.sh").chmod(0o751)
    (root / "plain").write_bytes(b"")
    workspace.write("run.sh", b"echo 2")
    workspace.write("other", b"x")
    assert stat.S_IMODE((root / "run.sh").stat().st_mode) == 0o751
    assert (root / "other").stat().st_mode == (root / "plain").stat().st_mode


def test_a_write_goes_through_a_symlink_that_stays_inside(root: Path, workspace: Workspace):
    (root / "real.txt").write_bytes(b"old")
    (root / "link.txt").symlink_to("real.txt")
    workspace.write("link.txt", b"new")
    assert (root / "link.txt").is_symlink()
    assert (root / "real.txt").read_bytes() == b"new"


def test_read_only_files_folders_and_files_used_as_folders_are_not_written(root: Path, workspace: Workspace):
    (root / "fixed").write_bytes(b"old")
    (root / "fixed").chmod(0o444)
    (root / "folder").mkdir()
    for path, said in [("fixed", "read-only"), ("folder", "it is a folder"), ("fixed/x", "is a file, not a folder")]:
        with pytest.raises(WorkspaceError, match=said):
            workspace.write(path, b"new")
    assert (root / "fixed").read_bytes() == b"old"


def test_undo_takes_writes_back_one_by_one_down_to_the_made_folders(root: Path, workspace: Workspace):
    (root / "a").write_bytes(b"1")
    (root / "a").chmod(0o600)
    workspace.write("a", b"2")
    workspace.write("new/b", b"x")
    workspace.write("a", b"3")
    assert workspace.undo() == "restored a as it was before the last write"
    assert (root / "a").read_bytes() == b"2"
    assert workspace.undo() == "removed new/b, which had been created"
    assert not (root / "new").exists()
    workspace.undo()
    assert (root / "a").read_bytes() == b"1"
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o600
    assert workspace.undo() is None


def test_undo_leaves_a_folder_that_others_use(root: Path, workspace: Workspace):
    workspace.write("new/b", b"x")
    (root / "new" / "theirs").write_bytes(b"y")
    workspace.undo()
    assert [item.name for item in (root / "new").iterdir()] == ["theirs"]


def test_undo_refuses_when_the_file_has_changed_since_and_loses_nothing(root: Path, workspace: Workspace):
    (root / "a").write_bytes(b"1")
    workspace.write("a", b"2")
    (root / "a").write_bytes(b"by hand")
    with pytest.raises(WorkspaceError, match="a has changed since"):
        workspace.undo()
    assert (root / "a").read_bytes() == b"by hand"
    (root / "a").unlink()
    with pytest.raises(WorkspaceError, match="a has changed since"):
        workspace.undo()
    (root / "a").write_bytes(b"2")
    workspace.undo()
    assert (root / "a").read_bytes() == b"1"


def test_huge_files_are_not_read_into_memory(root: Path, workspace: Workspace):
    with open(root / "huge", "wb") as file:
        file.truncate(10**9)
    with pytest.raises(WorkspaceError, match="huge is too large: 1,000,000,000 bytes"):
        workspace.read("huge")
