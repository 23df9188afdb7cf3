import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from continualcode.approval.bash import LONGEST, parse
from continualcode.approval.prefix import Prefix, covered

ALLOWED = tuple(
    Prefix.read(text)
    for text in (
        "ls",
        "cat",
        "echo",
        "grep",
        "find",
        "git log",
        "git diff",
        "rg",
        "sort",
        "cd",
        "head",
        "true",
        "test",
        "printf",
        "date",
        "less",
        "uniq",
        "xxd",
        "timeout",
        "time",
        "env",
        "xargs",
        "nohup",
        "nice",
        "stdbuf",
        "setsid",
        "command",
        "builtin",
        "exec",
        "sudo ls",
        "pytest",
        "python -m pytest",
        "make test",
        "tar tf",
        "sed -n 1,5p",
    )
)


def commands(line):
    script = parse(line)
    assert script.unclear is None, script.unclear
    return [(*command.assignments, *command.words) for command in script.commands]


def test_no_hostile_command_is_covered_by_prefixes(hostile):
    assert not covered(parse(hostile), ALLOWED)


@pytest.mark.parametrize(
    "line",
    [
        "ls",
        "ls -la src",
        "  ls  ",
        "ls\nls -la\n",
        "ls; cat a",
        "ls && cat a || echo b",
        "cat a | grep -n b | head -5 # the first",
        "(cd src && ls)",
        "{ ls; cat a; }",
        "! grep x y",
        "if grep x y; then ls; else cat z; fi",
        "while true; do ls; done",
        "ls 2>&1",
        "ls > /dev/null 2>&1",
        "find . -name '*.py' -newer x",
        "find . 2>/dev/null -name x",
        "grep -rn 'a; rm -rf ~' .",
        'grep -rn "a && rm -rf ~" .',
        r"grep a\;b c",
        r'echo "a \"b\" \$c"',
        "ls src/*.py",
        "ls ~/src",
        "git log --oneline -n 5 --pretty='%h %s' --author=\"A B\"",
        "git diff HEAD -- a b",
        "pytest -q -k 'a and b' tests/x.py::test_y",
        "pytest \\\n  -q \\\n  tests",
        "timeout 60 pytest -q",
        "time nice -n 5 ls",
        "env -u X ls",
        "f() { ls; }; ls",
        "python -m pytest -q",
        "case a in a) ls;; esac",
        "ls 'café'",
    ],
)
def test_plain_commands_are_covered(line):
    assert covered(parse(line), ALLOWED)


def test_words_are_what_bash_makes_of_them():
    assert commands(r"""a 'b c' "d \$e \x" f\ g h"i"'j'k '' {} >/dev/null l""") == [
        ("a", "b c", r"d $e \x", "f g", "hijk", "", "{}", "l")
    ]
    assert commands("a 'b\nc' \"d\\\\e\"") == [("a", "b\nc", "d\\e")]


def test_every_simple_command_is_found():
    assert commands("a | b && (c; d) & e") == [("a",), ("b",), ("c",), ("d",), ("e",)]
    assert commands('a $(b `c`) <(d) "$(e)"') == [("c",), ("b", None), ("d",), ("e",), ("a", None, None, None)]
    assert commands("a() { b; }\nwhile c; do d; done") == [("b",), ("c",), ("d",)]
    assert commands("X=1 a <<E\n$(b)\nE") == [("b",), ("X=1", "a")]


@pytest.mark.parametrize(
    ("line", "inner"),
    [
        ("sudo -u root FOO=1 rm -rf x", ("FOO=1", "rm", "-rf", "x")),
        ("env -i -u X A=1 rm x", ("A=1", "rm", "x")),
        ("timeout -k 5 10 rm x", ("rm", "x")),
        ("nice -n 5 nohup time -p rm x", ("rm", "x")),
        ("xargs -0 -n 1 rm", ("rm", None)),
        ("xargs -I {} rm a{}", ("rm", None, None)),
        ("find . -exec rm {} + -print", ("rm", None)),
        (r"find . -name x -execdir rm -f {} \;", ("rm", "-f", None)),
        ("bash -ec 'ls | rm x'", ("rm", "x")),
        ("eval ls '; rm' x", ("rm", "x")),
        ("sudo sh -c \"env -i sh -c 'rm x'\"", ("rm", "x")),
    ],
)
def test_what_a_command_runs_in_its_turn_is_found(line, inner):
    assert commands(line)[-1] == inner


def test_redirections_are_listed_but_for_null_and_duplicates():
    assert parse("a > b 2>> c < d &> e >| f 2>&1 > /dev/null").redirections == ("b", "c", "d", "e", "f")
    assert parse("a > $b >> *c; a <<< d").redirections == (None, None, None)
    assert parse("a <<E\nx\nE").redirections == (None,)


def test_looking_up_a_command_does_not_run_it():
    assert commands("command -v rm") == [("command", "-v", "rm")]


def test_long_and_deep_commands_are_unclear_and_quickly_so():
    start = time.perf_counter()
    for line in ("ls " * LONGEST, "(" * 5000 + "ls" + ")" * 5000, "sudo " * 500 + "ls", "$(" * 500 + "a" + ")" * 500):
        assert parse(line).unclear is not None
    for line in ("ls;" * 6000, "ls " * 6000, "ls | " * 3000 + "ls", "'" * 19_999, "eval " * 30 + "ls"):
        parse(line)
    assert time.perf_counter() - start < 5


WORDS = (
    "ls cat rm find git grep sort xargs env eval sudo bash sh -c -c -exec -delete -n {} a b x log ~ * ? [ ] { } ( ) ; & && "
    "| || ! = < > >> << <<< <( >( $( ` $ # ' \" \\ $' ${ $(( )) [[ ]] (( && if then else fi while do done for in case "
    "esac ;; function EOF 'a' \"b\" 'rm' A=1 2>&1 >/dev/null >x ls;rm"
)
PIECES = st.sampled_from(
    [
        *WORDS.split(),
        "\n",
        " ",
        " ",
        " ",
        "\t",
        "\\\n",
        "\r",
        "\u00a0",
        "; rm x",
        "\nrm x",
        "<<EOF\nEOF\n",
        "$(rm x)",
        "`rm x`",
    ]
)
LINES = st.lists(PIECES, min_size=1, max_size=12).map("".join) | st.lists(PIECES, max_size=10).map(" ".join)
HOME = "/home/of/nobody"
FEW = tuple(
    Prefix.read(text) for text in ("ls", "cat", "find", "git log", "grep", "env", "xargs", "true", "echo", "a", "f")
)
HARMLESS = st.sampled_from(
    [
        "ls -la a",
        "cat a | grep b",
        "ls; cat b && ls || a",
        "find . -name x",
        "env -i ls",
        "if ls; then cat a; fi",
        "{ ls; }; (a)",
        "f() { ls; }; f",
        "ls 2>&1 >/dev/null",
        "ls 'a b' \"c d\" # e",
        "git log -n a\ncat \\\n a",
        "case a in a) ls;; esac",
    ]
)


@st.composite
def harmless_with_something_put_in(draw):
    line = draw(HARMLESS)
    for piece in draw(st.lists(PIECES | HARMLESS, min_size=1, max_size=3)):
        position = draw(st.integers(0, len(line)))
        line = line[:position] + piece + line[position:]
    return line


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(line=harmless_with_something_put_in())
def test_bash_runs_nothing_of_a_covered_command_that_the_prefixes_do_not_name(line, ran):
    script = parse(line)
    if not covered(script, FEW) or (done := ran(line)) is None:
        return
    argued, files = done
    known = {words for command in script.commands for words in (command.words, at_home(command.words))}
    assert files == []
    assert set(argued) <= known


def at_home(words):
    return tuple(HOME + word[1:] if word == "~" or word.startswith("~/") else word for word in words)


def test_the_judge_sees_what_bash_runs_and_writes(ran):
    assert ran("ls 'a b'; rm $(a) > x; cat ~") == ([("ls", "a b"), ("a",), ("rm",), ("cat", HOME)], ["x"])


@settings(max_examples=300, deadline=None)
@given(line=st.text(max_size=40) | LINES)
def test_no_line_makes_the_reader_raise(line):
    parse(line)
