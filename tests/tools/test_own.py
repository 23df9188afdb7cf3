import os
import shutil
import sys

import pytest

from continualcode.errors import WorkspaceError
from continualcode.tools import Workspace


@pytest.fixture
def guarded(root, tmp_path):
    for folder in ("settings", "state"):
        (tmp_path / folder).mkdir()
    (root / ".git" / "hooks").mkdir(parents=True)
    (root / ".git" / "config").write_text("[core]\n")
    (root / "continualcode.toml").write_text("seed = 1\n")
    return Workspace(
        root, settings=[root / "continualcode.toml", root / "conf"], own=[root / "state", root / "plugins"]
    )


@pytest.mark.parametrize(
    "path",
    [
        "continualcode.toml",
        "./a/../continualcode.toml",
        "Continualcode.TOML",
        "continualcode.toml.",
        "continual\u200bcode.toml",
        "\uff43ontinualcode.toml",
        "conf/continualcode.toml",
        "state/allowed.json",
        "plugins/new/code.py",
        ".git/config",
        ".git/hooks/pre-commit",
        ".git/HEAD",
        ".GIT/config",
        ".g\u200cit/config",
        ".git /config",
        ".git",
        "below/.git/hooks/post-checkout",
        "below/.git",
        "to-git/config",
        "to-settings",
        "dangling",
        "other-name",
    ],
)
def test_no_tool_writes_the_agents_own_files_by_whatever_name(root, guarded, path):
    (root / "to-git").symlink_to(".git")
    (root / "to-settings").symlink_to("continualcode.toml")
    (root / "dangling").symlink_to("conf")
    os.link(root / "continualcode.toml", root / "other-name")
    before = sorted(root.rglob("*"))
    with pytest.raises(WorkspaceError, match="not for tools to write"):
        guarded.write(path, b"evil")
    assert sorted(root.rglob("*")) == before
    assert (root / "continualcode.toml").read_text() == "seed = 1\n"


@pytest.mark.parametrize(
    "path", [".github/workflows/ci.yml", ".gitignore", "git/config", "state.py", "conf.toml", "a.git/x"]
)
def test_what_only_looks_like_them_is_written(root, guarded, path):
    guarded.write(path, b"fine")
    assert (root / path).read_bytes() == b"fine"


def test_they_can_be_read(guarded):
    assert guarded.read("continualcode.toml") == b"seed = 1\n"
    assert guarded.read(".git/config") == b"[core]\n"


async def test_an_assembled_agent_guards_its_settings_its_state_and_where_it_runs_from(isolated, scripted_plugin):
    from continualcode import Config
    from continualcode.assembly import build
    from continualcode.plugins import load_plugins
    from continualcode.testing import ScriptedBackend

    plugins = load_plugins(scripted_plugin(ScriptedBackend([])), entry_points=False)
    config = Config(workspace=isolated, backend="scripted", renderer="bytes")
    workspace = (await build(config, plugins)).workspace
    for own in ("continualcode.toml", "config/continualcode/continualcode.toml", "state/continualcode/allowed.json"):
        with pytest.raises(WorkspaceError, match="not for tools to write"):
            workspace.write(own, b"evil")
    if sys.prefix != sys.base_prefix:
        assert workspace.own.holds((isolated / sys.prefix / "lib/plugin.py").resolve())


def test_what_is_too_much_to_keep_is_left_alone(root, guarded):
    for number in range(300):
        (root / ".git/hooks" / str(number)).write_text("x")
    kept = guarded.own.keep(read_only=False)
    (root / ".git/hooks/0").write_text("y")
    (root / ".git/config").write_text("evil")
    assert guarded.own.put_back(kept) == (root / ".git/config",)


def test_a_whole_repository_that_was_removed_is_not_half_restored(root, guarded):
    kept = guarded.own.keep(read_only=False)
    (root / ".git/config").unlink()
    (root / ".git/hooks").rmdir()
    (root / ".git").rmdir()
    assert guarded.own.put_back(kept) == ()
    assert not (root / ".git").exists()


def test_hooks_are_put_back_with_their_links_and_modes(root, guarded):
    (root / ".git/hooks/a").symlink_to("../../a")
    (root / ".git/hooks/b").write_text("b")
    (root / ".git/hooks/b").chmod(0o750)
    kept = guarded.own.keep(read_only=False)
    (root / ".git/hooks/b").chmod(0o777)
    (root / ".git/hooks/a").unlink()
    assert guarded.own.put_back(kept) == (root / ".git/hooks",)
    assert os.readlink(root / ".git/hooks/a") == "../../a"
    assert (root / ".git/hooks/b").stat().st_mode & 0o7777 == 0o750


def test_putting_back_never_follows_a_link_that_took_a_folders_place(root, tmp_path):
    outside = tmp_path / "outside"
    (outside / "hooks").mkdir(parents=True)
    for name in ("config", "commondir", "config.worktree", "hooks/theirs", "settings.toml"):
        (outside / name).write_text("theirs")
    for folder in (".git/modules/lib", "conf"):
        (root / folder).mkdir(parents=True)
    for name in (".git/modules/lib/HEAD", ".git/modules/lib/config", "conf/settings.toml"):
        (root / name).write_text("ours")
    own = Workspace(root, settings=[root / "conf/settings.toml"]).own
    for read_only in (True, False):
        kept = own.keep(read_only=read_only)
        for folder in (".git/modules/lib", "conf"):
            (root / folder).rename(root / "aside")
            (root / folder).symlink_to(outside)
            own.put_back(kept)
            if (root / folder).is_symlink():
                (root / folder).unlink()
            elif (root / folder).exists():
                shutil.rmtree(root / folder)
            (root / "aside").rename(root / folder)
        assert {path.read_text() for path in outside.rglob("*") if path.is_file()} == {"theirs"}
        assert len(list(outside.rglob("*"))) == 6


def test_settings_whose_folder_was_replaced_are_put_back(root):
    (root / "conf").mkdir()
    (root / "conf/settings.toml").write_text("ours")
    own = Workspace(root, settings=[root / "conf/settings.toml"]).own
    kept = own.keep(read_only=False)
    shutil.rmtree(root / "conf")
    (root / "conf").symlink_to(".")
    (root / "settings.toml").write_text("evil")
    assert own.put_back(kept) == (root / "conf", root / "conf/settings.toml")
    assert (root / "conf/settings.toml").read_text() == "ours"
