import pytest
from hypothesis import given
from hypothesis import strategies as st

from continualcode.frontends.safe import shorten, typed, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\tcafé 漢字 ✓", "plain\n\tcafé 漢字 ✓"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\rb\x08c\x9bK", r"a\x0db\x08c\x9bK"),
        ("if admin\u202e ⁦// check\u2069", r"if admin\u202e \u2066// check\u2069"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("half \ud800", r"half \ud800"),
        ("tag \U000e0041", r"tag \U000e0041"),
    ],
)
def test_what_could_move_hide_or_reorder_is_a_visible_escape(text, shown):
    assert visible(text) == shown


@given(st.text(st.characters(codec=None)))
def test_nothing_printed_controls_the_terminal(text):
    shown = visible(text)
    assert all(character in "\n\t" or character.isprintable() or character.isspace() for character in shown)
    assert not set(shown) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}
    shown.encode()


def test_shortening_keeps_the_beginning_and_the_end():
    assert shorten("a\n  b") == "a b"
    line = shorten("begin " + "x" * 1000 + " end")
    assert len(line) == 240
    assert line.startswith("begin")
    assert line.endswith("end")


def test_bytes_typed_that_are_no_utf8_are_replaced():
    assert typed("a\udcffb") == "a\ufffdb"
