import ctypes
import os
import stat
import sys
import threading
from contextlib import suppress
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
    for path in (".", "folder"):
        with pytest.raises(WorkspaceError, match="it is a folder"):
            workspace.read(path)
    assert (root / "fixed").read_bytes() == b"old"


def test_huge_files_are_not_read_into_memory(root: Path, workspace: Workspace):
    with open(root / "huge", "wb") as file:
        file.truncate(10**9)
    with pytest.raises(WorkspaceError, match="huge is too large: 1,000,000,000 bytes"):
        workspace.read("huge")


@pytest.mark.skipif(sys.platform != "linux", reason="swaps by renameat2")
def test_a_folder_swapped_for_a_link_at_any_moment_leads_no_read_or_write_outside(
    tmp_path: Path, root: Path, workspace: Workspace
):
    outside, spot, link = tmp_path / "outside", root / "spot", root / "link"
    for folder in (outside, spot):
        folder.mkdir()
    (outside / "a").write_bytes(b"secret")
    (spot / "a").write_bytes(b"ours")
    link.symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        exchange = ctypes.CDLL(None).renameat2
        while not stop.is_set():
            assert exchange(-100, bytes(spot), -100, bytes(link), 2) == 0

    swapping = threading.Thread(target=swap)
    swapping.start()
    read = []
    try:
        for number in range(300):
            with suppress(WorkspaceError):
                workspace.write("spot/b", b"%d" % number)
            with suppress(WorkspaceError):
                workspace.write("spot/new/c", b"%d" % number)
            with suppress(WorkspaceError):
                read.append(workspace.read("spot/a"))
    finally:
        stop.set()
        swapping.join()
    assert [item.name for item in outside.iterdir()] == ["a"]
    assert (outside / "a").read_bytes() == b"secret"
    assert set(read) <= {b"ours"}
