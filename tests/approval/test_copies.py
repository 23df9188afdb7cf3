import os
import random
import shutil
import subprocess

import pytest

from continualcode.approval.copies import Copy


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "src" / "a.py").write_text("a")
    (folder / "src" / "deep" / "b.py").write_text("b")
    (folder / ".gitignore").write_text("*.log\nbuild/\n")
    (folder / "big.log").write_text("ignored")
    (folder / "build").mkdir()
    (folder / "build" / "out").write_text("ignored")
    return folder


def git(folder, *words):
    subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True)


def found(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or path.is_file()}


def copied(source, **options):
    copy = Copy(source, **options)
    copy.put(copy.of_source())
    return copy


@pytest.mark.parametrize("repository", [True, False])
def test_it_holds_what_is_not_ignored(source, repository):
    if repository:
        git(source, "init", "-q")
    copy = copied(source)
    assert found(copy.root) == {"src/a.py", "src/deep/b.py", ".gitignore"}
    assert found(copied(source, also=["build", "big.log"]).root) == found(copy.root) | {"build/out", "big.log"}


def test_what_git_tracks_is_there_though_ignored_and_what_was_deleted_is_not(source):
    git(source, "init", "-q")
    git(source, "add", "-f", "big.log", "src/a.py")
    (source / "src" / "a.py").unlink()
    assert found(copied(source).root) == {"src/deep/b.py", ".gitignore", "big.log"}


def test_a_folder_that_the_repository_around_it_ignores_is_copied_all_the_same(source):
    git(source, "init", "-q")
    assert found(copied(source / "build").root) == {"out"}


def test_a_repository_within_is_copied_with_its_files(source):
    (source / "inner").mkdir()
    (source / "inner" / "c.py").write_text("c")
    for folder in (source / "inner", source):
        git(folder, "init", "-q")
    assert "inner/c.py" in found(copied(source).root)


def test_contents_modes_and_links_are_the_same(source):
    (source / "run").write_bytes(b"\x00\xff")
    (source / "run").chmod(0o755)
    (source / "near").symlink_to("src/a.py")
    (source / "full").symlink_to(source / "src")
    os.mkfifo(source / "pipe")
    copy = copied(source)
    assert not (copy.root / "pipe").exists()
    assert (copy.root / "run").read_bytes() == b"\x00\xff"
    assert os.access(copy.root / "run", os.X_OK)
    assert os.readlink(copy.root / "near") == "src/a.py"
    assert (copy.root / "full" / "a.py").resolve() == copy.root / "src" / "a.py"
    assert copy.of_copy() == copy.of_source()


def test_nothing_is_a_hard_link(source):
    assert (copied(source).root / "src" / "a.py").stat().st_ino != (source / "src" / "a.py").stat().st_ino


def test_only_what_changed_is_written_again_and_gets_a_later_time(source):
    copy = copied(source)
    before = {name: (copy.root / name).stat() for name in found(copy.root)}
    (source / "src" / "a.py").write_text("A")
    copy.put(copy.of_source())
    after = {name: (copy.root / name).stat() for name in found(copy.root)}
    assert {name for name in after if after[name].st_ino != before[name].st_ino} == {"src/a.py"}
    assert {name for name in after if after[name].st_mtime != before[name].st_mtime} == {"src/a.py"}
    assert int(after["src/a.py"].st_mtime) > int(before["src/a.py"].st_mtime)


def test_a_change_right_after_it_was_read_is_seen(source):
    copy = Copy(source)
    trees = []
    for letter in "abcabc":
        stamp = (source / "src" / "a.py").stat()
        (source / "src" / "a.py").write_text(letter)
        os.utime(source / "src" / "a.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        trees.append(copy.of_source().digest)
    assert trees[:3] == trees[3:]
    assert len(set(trees)) == 3


def test_any_earlier_tree_can_be_put_back_when_the_workspace_has_gone_on(source):
    copy = copied(source)
    first = copy.of_source()
    (copy.root / "src" / "a.py").write_text("tried")
    (copy.root / "new.py").write_text("tried")
    (copy.root / "src" / "deep" / "b.py").unlink()
    tried = copy.of_copy()
    assert tuple(first.changes_to(tried)) == ("new.py", "src/a.py", "src/deep/b.py")
    (source / "src" / "a.py").write_text("done")
    copy.put(copy.of_source())
    for tree, expected in ((first, "a"), (tried, "tried"), (copy.of_source(), "done"), (first, "a")):
        copy.put(tree)
        assert (copy.root / "src" / "a.py").read_text() == expected
        assert copy.of_copy() == tree


def test_what_a_program_left_is_removed_but_for_caches(source):
    copy = copied(source)
    tree = copy.of_source()
    for made in ("src/junk/x", "src/__pycache__/a.pyc", "src/junk/__pycache__/x.pyc"):
        (copy.root / made).parent.mkdir(parents=True, exist_ok=True)
        (copy.root / made).write_text("x")
    (copy.root / "src" / "a.py").write_text("spoilt")
    copy.put(tree)
    assert found(copy.root) == found(source) - {"big.log", "build/out"} | {"src/__pycache__/a.pyc"}
    assert not (copy.root / "src" / "junk").exists()
    assert (copy.root / "src" / "a.py").read_text() == "a"


def test_a_link_left_in_place_of_a_folder_does_not_lead_a_write_out(source):
    copy = copied(source)
    tree = copy.of_source()
    for name in ("a.py", "deep/b.py"):
        (copy.root / "src" / name).unlink()
    (copy.root / "src" / "deep").rmdir()
    (copy.root / "src").rmdir()
    (copy.root / "src").symlink_to(source / "build")
    (copy.root / "__pycache__").symlink_to(source / "build")
    copy.put(tree)
    assert found(source / "build") == {"out"}
    assert (copy.root / "src" / "a.py").read_text() == "a"
    assert not (copy.root / "__pycache__").exists()


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_program_does_in_the_copy_is_undone_and_done_again(source, seed):
    chance, before = random.Random(seed), {path: (source / path).read_bytes() for path in found(source)}
    copy = copied(source)
    trees = [copy.of_source()]
    for _ in range(6):
        havoc(copy.root, chance, outside=source)
        trees.append(copy.of_copy())
        for tree in chance.sample(trees, k=2):
            copy.put(tree)
            assert copy.of_copy() == tree
            assert {path for path in found(copy.root) if "__pycache__" not in path} == set(
                filter(tree.has_file, tree.entries)
            )
    assert {path: (source / path).read_bytes() for path in found(source)} == before


def havoc(root, chance, outside):
    """Writes, removes, links and makes folders, at random."""
    for _ in range(8):
        name = root / chance.choice(["src", "src/a.py", "src/deep", "src/deep/b.py", "new", "new/x", "__pycache__/y"])
        if os.path.realpath(name.parent) != str(name.parent):  # through a link a program would write outside by itself
            continue
        try:
            match chance.randrange(5):
                case 0 if not name.is_symlink() and not name.is_fifo():
                    name.write_text(chance.choice("abc"))
                case 1:
                    shutil.rmtree(name) if name.is_dir() and not name.is_symlink() else name.unlink()
                case 2:
                    name.symlink_to(chance.choice([outside / "src", outside / "src" / "a.py", root / "src"]))
                case 3:
                    chance.choice([os.mkdir, os.mkfifo])(name)
                case 4 if name.is_file() and not name.is_symlink():
                    name.chmod(chance.choice([0o600, 0o755, 0o400]))
        except OSError:  # not now
            continue


def test_it_is_gone_when_nobody_needs_it(source):
    copy = copied(source)
    folder = copy.around
    del copy
    assert not folder.exists()


def test_a_git_that_lies_in_the_workspace_is_not_run(tmp_path, monkeypatch):
    workspace, marker = tmp_path / "work", tmp_path / "ran"
    (workspace / ".git").mkdir(parents=True)
    (workspace / "a.py").write_text("a = 1\n")
    planted = workspace / "bin" / "git"
    planted.parent.mkdir()
    planted.write_text(f"#!/bin/sh\ntouch {marker}\n")
    planted.chmod(0o755)
    monkeypatch.setenv("PATH", str(planted.parent), prepend=":")
    assert set(Copy(workspace).of_source().entries) - {"bin"} == {"a.py", "bin/git"}
    assert not marker.exists()


def test_what_the_workspace_would_not_list_is_told_apart(source):
    copy = copied(source)
    before = copy.of_copy()
    for name, text in {"src/new.py": "n", "more.log": "x", ".cache/x": "x", ".cache/.gitignore": "*\n"}.items():
        (copy.root / name).parent.mkdir(exist_ok=True)
        (copy.root / name).write_text(text)
    after = copy.of_copy()
    assert before.changes_to(after).keys() == {"src/new.py", "more.log", ".cache", ".cache/x", ".cache/.gitignore"}
    (source / "src" / "new.py").write_text("n")
    assert copy.listed(after, before).digest == copy.of_source().digest
