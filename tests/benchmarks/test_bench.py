"""docs/benchmarks.md is what the stored outputs give, whatever stands in it was printed by a command, and nothing is left out."""

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def bench():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("bench")


@pytest.fixture
def empty(bench, tmp_path, monkeypatch):
    """The runner with nothing measured yet, in a folder of its own."""
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "DOCS", tmp_path)
    monkeypatch.setattr(bench, "MEASURED", tmp_path / "measured")
    monkeypatch.setattr(bench, "TEXT", tmp_path / "text.md.in")
    return bench


def given(bench, monkeypatch, *sections):
    monkeypatch.setattr(bench, "SECTIONS", sections)
    bench.TEXT.write_text("$machines\n$overview\n" + "\n".join(f"## {s.name}\n${s.name}" for s in sections))


def test_the_page_is_what_the_stored_outputs_give(bench):
    assert (ROOT / "docs/benchmarks.md").read_text() == bench.page()


def test_every_section_has_its_place_in_the_text_once(bench):
    places = re.findall(r"\$(\w+)", bench.TEXT.read_text())
    assert sorted(places) == sorted([*(section.name for section in bench.SECTIONS), "machines", "overview"])


def test_every_stored_output_has_a_section(bench):
    assert {path.stem for path in bench.MEASURED.iterdir()} <= {section.name for section in bench.SECTIONS}


def test_every_program_among_the_benchmarks_has_a_section_or_is_left_out_with_a_reason(bench):
    programs = {
        path.stem for path in (ROOT / "benchmarks").glob("*.py") if '\nif __name__ == "__main__":' in path.read_text()
    }
    run = set(re.findall(r"benchmarks/(\w+)\.py", "\n".join(section.command for section in bench.SECTIONS)))
    assert run.isdisjoint(bench.LEFT_OUT)
    assert programs == run | set(bench.LEFT_OUT)


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_every_link_and_picture_is_there(page):
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "docs" / page).read_text())
    assert [link for link in links if "://" not in link and not (ROOT / "docs" / link).exists()] == []


def test_what_a_command_prints_is_shown_kept_and_put_on_the_page(empty, monkeypatch, capfd):
    given(empty, monkeypatch, empty.Section("one", "python -c 'print(\"ok 3.5 s\\n| a |\\n|---|\\n| b |\\nend\")'"))
    monkeypatch.setattr(sys, "argv", ["bench.py"])
    assert empty.main() == 0
    assert "ok 3.5 s\n| a |" in capfd.readouterr().out
    record = empty.read(empty.SECTIONS[0])
    assert (record.status, record.output) == ("0", "ok 3.5 s\n| a |\n|---|\n| b |\nend")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", record.date)
    page = (empty.DOCS / "benchmarks.md").read_text()
    assert "```\nok 3.5 s\n```\n\n| a |\n|---|\n| b |\n\n```\nend\n```" in page, "tables as tables"
    assert f"- {record.machine}; {record.versions}" in page
    assert "Commands of the CPU set, timed: 1 of 1, 0 minutes in all." in page


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("echo 'MISSED too slow'; exit 1", "**a target was missed**"),
        ("echo 'speed: **missed**'", "**a target was missed**"),
        ("echo half; exit 3", "**failed: exit status 3**"),
    ],
)
def test_a_missed_target_and_a_failure_are_told(empty, monkeypatch, command, told):
    given(empty, monkeypatch, empty.Section("one", command))
    monkeypatch.setattr(sys, "argv", ["bench.py"])
    assert empty.main() == 1
    assert told in (empty.DOCS / "benchmarks.md").read_text()


def test_long_ones_run_by_name_only_and_do_not_count(empty, monkeypatch):
    given(empty, monkeypatch, empty.Section("quick", "echo 1"), empty.Section("slow", "echo 2", long=True))
    monkeypatch.setattr(sys, "argv", ["bench.py"])
    empty.main()
    assert "Not measured yet: `python benchmarks/bench.py slow`" in (empty.DOCS / "benchmarks.md").read_text()
    monkeypatch.setattr(sys, "argv", ["bench.py", "slow"])
    empty.main()
    empty.write(slow := empty.SECTIONS[1], replace(empty.read(slow), seconds="6000"))
    assert "Commands of the CPU set, timed: 1 of 1, 0 minutes in all." in empty.page()


def test_of_a_page_that_a_command_writes_the_summary_is_shown(empty, monkeypatch):
    section = empty.Section(
        "one", "echo noise; printf 'a\\n| sum |\\nb\\nrest\\n' > own.md", excerpt=("own.md", "| sum", "rest")
    )
    given(empty, monkeypatch, section)
    monkeypatch.setattr(sys, "argv", ["bench.py"])
    empty.main()
    page = (empty.DOCS / "benchmarks.md").read_text()
    assert page.endswith("\n\n| sum |\nb"), "as it is"
    assert "rest" not in page.replace(section.command, "")
    assert "noise" not in page.replace(section.command, "")


def test_other_machines_are_named_with_their_sections(empty, monkeypatch):
    sections = [empty.Section(name, "true") for name in ("one", "two", "three")]
    given(empty, monkeypatch, *sections)
    for section, machine in zip(sections, ("here", "there", "here"), strict=True):
        empty.write(section, empty.Record("2026-01-01", "true", "1", "0", "0.1", machine, "Python 3", "1"))
    assert empty.machines({section: empty.read(section) for section in sections}) == (
        "- here; Python 3\n- two: there; Python 3"
    )


def test_an_unknown_name_is_refused(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.py", "enginee"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "unknown: enginee; there are engine, " in capsys.readouterr().err
