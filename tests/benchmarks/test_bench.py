"""docs/benchmarks.md is what the stored outputs give, whatever stands in it was printed by a command, and nothing is left out."""

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_OUT = {
    "bench": "runs the others",
    "peers": "run by engine.py",
    "round_trips_original": "run by round_trips.py",
    "round_trips_ours": "run by round_trips.py",
    "safety_swaps": "run by safety.py",
}
"""Programs among the benchmarks that have no section, and why."""


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


def given(bench, monkeypatch, *places, words=()):
    """A text with these places, and what stands on the command line."""
    bench.TEXT.write_text("{{machines}}\n{{overview}}\n" + "".join(f"## Title\n{place}\n" for place in places))
    monkeypatch.setattr(sys, "argv", ["bench.py", *words])
    return bench.sections()


def test_the_page_is_what_the_stored_outputs_give(bench):
    assert (ROOT / "docs/benchmarks.md").read_text() == bench.page()


def test_every_place_in_the_text_is_understood_and_no_name_is_there_twice(bench):
    names = [section.name for section in bench.sections()]
    assert len(names) == len(set(names))
    assert bench.TEXT.read_text().count("{{") == len([*names, "machines", "overview"])


def test_every_stored_output_has_a_section(bench):
    assert {path.stem for path in bench.MEASURED.iterdir()} <= {section.name for section in bench.sections()}


def test_every_program_among_the_benchmarks_has_a_section_or_is_left_out_with_a_reason(bench):
    programs = {
        path.stem for path in (ROOT / "benchmarks").glob("*.py") if '\nif __name__ == "__main__":' in path.read_text()
    }
    run = set(re.findall(r"benchmarks/(\w+)\.py", "\n".join(section.command for section in bench.sections())))
    assert run.isdisjoint(LEFT_OUT)
    assert programs == run | set(LEFT_OUT)


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_every_link_and_picture_is_there(page):
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "docs" / page).read_text())
    assert [link for link in links if "://" not in link and not (ROOT / "docs" / link).exists()] == []


def test_what_a_command_prints_is_shown_kept_and_put_on_the_page(empty, monkeypatch, capfd):
    [one] = given(empty, monkeypatch, "{{one: python -c 'print(\"ok 3.5 s\\n| a |\\n|---|\\n| b |\\nend\")'}}")
    assert empty.main() == 0
    assert "ok 3.5 s\n| a |" in capfd.readouterr().out
    record = empty.read(one)
    assert (record.status, record.output) == ("0", "ok 3.5 s\n| a |\n|---|\n| b |\nend")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", record.date)
    page = (empty.DOCS / "benchmarks.md").read_text()
    assert "```\nok 3.5 s\n```\n\n| a |\n|---|\n| b |\n\n```\nend\n```" in page, "tables as tables"
    assert f"- {record.machine}; {record.versions}" in page
    assert "The CPU set: 1 of 1 commands are timed, 0 minutes in all." in page


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("echo 'MISSED too slow'; exit 1", "**a target was missed**"),
        ("echo 'speed: **missed**'", "**a target was missed**"),
        ("echo half; exit 3", "**failed: exit status 3**"),
    ],
)
def test_a_missed_target_and_a_failure_are_told(empty, monkeypatch, command, told):
    given(empty, monkeypatch, f"{{{{one: {command}}}}}")
    assert empty.main() == 1
    assert told in (empty.DOCS / "benchmarks.md").read_text()


def test_long_ones_run_by_name_only_and_do_not_count(empty, monkeypatch):
    _, slow = given(empty, monkeypatch, "{{quick: echo 1}}", "{{slow long: echo 2}}")
    empty.main()
    assert "Not measured yet: `python benchmarks/bench.py slow`" in (empty.DOCS / "benchmarks.md").read_text()
    monkeypatch.setattr(sys, "argv", ["bench.py", "slow"])
    empty.main()
    empty.write(slow, replace(empty.read(slow), seconds="6000"))
    assert "The CPU set: 1 of 1 commands are timed, 0 minutes in all." in empty.page()


def test_of_a_page_that_a_command_writes_the_summary_is_shown(empty, monkeypatch):
    command = "echo noise; printf 'a\\n| sum |\\nb\\nrest\\n' > own.md"
    given(empty, monkeypatch, f"{{{{one: {command} -> own.md '| sum' 'rest'}}}}")
    empty.main()
    page = (empty.DOCS / "benchmarks.md").read_text()
    assert page.endswith(f"`{command}`, {empty.read(empty.sections()[0]).date[:10]}\n\n| sum |\nb\n"), "as it is"


def test_a_run_that_is_stopped_leaves_a_page_of_what_it_had(empty, monkeypatch):
    one, _ = given(empty, monkeypatch, "{{one: echo 1}}", "{{two: echo 2}}")
    run = empty.run
    monkeypatch.setattr(empty, "run", lambda section: run(section) if section == one else sys.exit(130))
    with pytest.raises(SystemExit):
        empty.main()
    assert "```\n1\n```" in (empty.DOCS / "benchmarks.md").read_text()


def test_other_machines_are_named_with_their_sections(empty, monkeypatch):
    sections = given(empty, monkeypatch, "{{one: true}}", "{{two: true}}", "{{three: true}}")
    for section, machine in zip(sections, ("here", "there", "here"), strict=True):
        empty.write(section, empty.Record("2026-01-01", "true", "1", "0", "0.1", machine, "Python 3", "1"))
    assert empty.machines({section: empty.read(section) for section in sections}) == (
        "- here; Python 3\n- two: there; Python 3"
    )


def test_an_unknown_name_is_refused(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.py", "enginee"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "unknown: enginee; there are demo, " in capsys.readouterr().err
