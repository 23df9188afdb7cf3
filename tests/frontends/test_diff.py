import time

from hypothesis import given
from hypothesis import strategies as st

from continualcode.frontends.terminal.diff import DiffLine, diff

TEXTS = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "a\x0cb\u2028\n"]), max_size=30).map("".join)


@given(TEXTS, TEXTS, st.sampled_from(["", "z"]))
def test_the_diff_applied_to_the_old_text_gives_the_new(before, after, rest):
    after += rest
    old, new, changed = before.split("\n"), after.split("\n"), diff(before, after)
    removed = {line.number for line in changed.lines if line.kind == "removed"}
    added = {line.number: line.text for line in changed.lines if line.kind == "added"}
    kept = iter([line for number, line in enumerate(old, 1) if number not in removed])
    rebuilt = [
        added[number] if number in added else next(kept)
        for number in range(1, len(new) + 1)
        if new[number - 1] or number < len(new)
    ]
    assert rebuilt == [line for number, line in enumerate(new, 1) if line or number < len(new)]
    assert (changed.added, changed.removed) == (len(added), len(removed))


def test_lines_are_numbered_as_in_the_file_with_three_lines_around_a_change():
    before = "".join(f"{number}\n" for number in range(1, 21))
    lines = diff(before, before.replace("10\n", "ten\nzehn\n")).lines
    assert [(line.kind, line.number, line.text) for line in lines] == [
        ("context", 7, "7"),
        ("context", 8, "8"),
        ("context", 9, "9"),
        ("removed", 10, "10"),
        ("added", 10, "ten"),
        ("added", 11, "zehn"),
        ("context", 12, "11"),
        ("context", 13, "12"),
        ("context", 14, "13"),
    ]


def test_a_new_file_is_all_plus_and_an_equal_one_has_no_lines():
    assert diff("", "x\n").lines == (DiffLine("added", 1, "x"),)
    assert diff("x\n", "x\n").lines == ()


def test_two_changes_far_apart_are_parted_by_a_gap():
    before = "".join(f"{number}\n" for number in range(30))
    kinds = [line.kind for line in diff(before, before.replace("0\n", "o\n", 1).replace("29\n", "end\n")).lines]
    assert kinds.count("gap") == 1


def test_a_change_of_newlines_or_of_the_last_newline_can_be_seen():
    assert [line.text for line in diff("a\r\nb\r\n", "a\r\nc\r\n").lines] == ["a", "b", "c"]
    assert [line.text for line in diff("a\r\n", "a\n").lines] == ["a\r", "a"]
    assert [line.text for line in diff("a\n", "a").lines] == ["a", "a", "no newline at the end of the file"]


def test_huge_changes_take_no_time():
    before, after = ("".join(f"{word}{number % 7}\n" for number in range(50_000)) for word in ("old", "new"))
    started = time.perf_counter()
    assert diff(f"same\n{before}same\n", f"same\n{after}same\n").added == 50_000
    assert time.perf_counter() - started < 5
