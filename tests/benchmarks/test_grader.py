"""What passes and what does not, in every sandbox there is here; a hostile solution gets nothing and leaves nothing."""

import asyncio
import glob
import os
import platform
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from continualcode.tools.sandbox import KINDS, Sandbox, problem_with

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="solutions are graded on Linux only")
SUM = "print(sum(map(int, input().split())))"
LEFT = "left by a run"


@pytest.fixture(scope="module")
def lib(livecode):
    return livecode("grader")


@pytest.fixture(scope="module")
def make(livecode):
    """Makes a problem of adding numbers, the last cases private: `make("1 2", "3 4")`."""
    module = livecode("problem")

    def problem(*inputs, public=1, function=None, outputs=None):
        outputs = outputs or [str(sum(map(int, line.split()))) for line in inputs]
        cases = [module.Case(line, output) for line, output in zip(inputs, outputs, strict=True)]
        return module.Problem("p", "P", "Add.", tuple(cases[:public]), tuple(cases[public:]), function)

    return problem


@pytest.fixture(params=KINDS)
def confined(request):
    if platform.machine() != "x86_64":
        pytest.skip("solutions can be confined on x86_64 only")
    if problem_with(request.param) is not None:
        pytest.skip(problem_with(request.param))
    return Sandbox(request.param, "as tested")


@pytest.fixture
async def grader(lib, confined):
    async with lib.Grader(lib.Limits(seconds=0.5), workers=2, sandbox=confined) as made:
        yield made


@pytest.fixture
async def unconfined(lib):
    async with lib.Grader(lib.Limits(seconds=0.5), workers=2, sandbox=Sandbox("none", "as tested")) as made:
        yield made


def statuses(grade):
    return [verdict.status for verdict in grade.verdicts]


async def test_a_verdict_for_each_case(grader, make):
    code = "x = input()\nprint(3 if x == '1 2' else 1 / 0 if x == '0 0' else 'no')"
    grade = await grader.grade(make("1 2", "0 0", "4 4"), code)
    assert statuses(grade) == ["passed", "error", "wrong"]
    assert [verdict.got for verdict in grade.verdicts] == ["3\n", "", "no\n"]
    assert grade.verdicts[1].detail.startswith('Traceback (most recent call last):\n  File "solution.py", line 2, in')
    assert grade.verdicts[1].detail.endswith("ZeroDivisionError: division by zero")
    assert not grade.passed
    assert grade.share == pytest.approx(1 / 3)


async def test_only_the_cases_asked_for(grader, make):
    problem = make("1 2", "3 4", "5 6")
    grade = await grader.grade(problem, "print(3)", problem.public)
    assert grade.passed
    assert grade.cases == problem.public
    assert not (await grader.grade(problem, SUM, ())).passed


@pytest.mark.parametrize(
    "code",
    [
        SUM,
        "import sys\nprint(sum(int(w) for line in sys.stdin for w in line.split()))",
        "import sys\nprint(sum(map(int, sys.stdin.readline().split())))",
        "import sys\ninput = sys.stdin.readline\nprint(sum(map(int, input().split())))",
        "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))",
        "import sys\nprint(sum(map(int, sys.stdin.buffer.readline().split())))",
        "print(sum(map(int, stdin.readline().split())))",
        "print(sum(map(int, open(0).read().split())))",
        "print(sum(map(int, open('/dev/stdin').read().split())))",
        "import os\nos.write(1, str(sum(map(int, os.read(0, 100).split()))).encode())",
        "import os, io\nprint(sum(map(int, io.BytesIO(os.read(0, os.fstat(0).st_size)).read().split())))",
        "import fileinput\nprint(sum(map(int, next(fileinput.input()).split())))",
        "import sys\nsys.stdout.write(str(sum(map(int, input().split()))))\nsys.exit(0)",
        f"def main():\n    {SUM}\nif __name__ == '__main__':\n    main()",
        f"def main():\n    {SUM}\nimport threading\nthreading.stack_size(2**27)\nthreading.Thread(target=main).start()",
        f"import atexit\natexit.register(lambda: exec({SUM!r}))",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: 'int'\n"
        "print(sum(P(int(w)).x for w in input().split()))",
        "def f(n): return 0 if n == 0 else 1 + f(n - 1)\na, b = map(int, input().split())\nprint(a + b + f(20000) - 20000)",
        "import numpy\nprint(numpy.array(input().split(), int).sum())",
        "print(reduce(lambda a, b: a + b, Counter(), 0) + sum(map(int, input().split())))  # imported for it",
    ],
)
async def test_programs_that_pass(grader, make, code):
    grade = await grader.grade(make("1 2", "30 40"), code)
    assert grade.passed, grade.verdicts


@pytest.mark.parametrize(
    ("function", "code", "output"),
    [
        ("f", "class Solution:\n    def f(self, a: List[int], b: str):\n        return len(a) + len(b)", "4"),
        ("f", "def f(a, b):\n    return len(a) + len(b)", "4.0"),
        (
            "f",
            "class Solution:\n    def f(self, a, b):\n        print('debug')\n        return (b, a)",
            '["xy", [1, 2]]',
        ),
        ("f", "class Solution:\n    def f(self, a, b):\n        return [(i, i) for i in a]", "[[1, 1], [2, 2]]"),
        ("f", "import numpy\nclass Solution:\n    def f(self, a, b):\n        return numpy.sum(a)", "3"),
        ("f", "class Solution:\n    def f(self, a, b):\n        return None", "null"),
    ],
)
async def test_functions_that_pass(grader, make, function, code, output):
    grade = await grader.grade(make('[1, 2]\n"xy"', outputs=[output], function=function), code)
    assert grade.passed, grade.verdicts


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ("3\n", "3", True),
        ("  1 2 \n3  \n\n", "1 2\n3", True),
        ("1  2", "1 2", True),
        ("0.50 1e3", "0.5 1000", True),
        ("50000000000000000", "50000000000000001", False),
        ("0.1", "0.1000001", False),
        ("yes  no", "yes no", False),
        ("Yes", "yes", False),
        ("1\n\n2", "1\n2", False),
        ("1 2 3", "1 2", False),
        ("1 2", "1 2 3", False),
        ("1 2\n3", "1 2 3", False),
        ("", "1", False),
        ("nan", "nan", True),
        ("1 nan", "1.0 nan", False),
        ("", "", True),
    ],
)
def test_text_is_compared_as_livecodebench_does(lib, got, expected, same):
    assert lib._same_text(got, expected) is same


async def test_output_of_numbers_without_end_is_not_read_as_numbers(lib):
    started = time.perf_counter()
    assert not lib._same_text("1 " * 4_000_000 + "2", "1 1")
    assert not lib._same_text("1\n" * 4_000_000, "1 1")
    assert not lib._same_value("[" * 100_000, "1")
    assert time.perf_counter() - started < 1.0


ANY = "class Any:\n    def __eq__(self, other): return True\n    def __repr__(self): return 'x'\n"
PATCHED = "import builtins, json\njson.loads = json.dumps = lambda *a, **k: 'x'\nbuiltins.str = builtins.all = lambda *a: True\n"


@pytest.mark.parametrize(
    "code",
    [
        "print(3)",  # of the public case
        "exit(0)",
        "import os\nos._exit(0)",
        "import sys\nsys.exit()",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)",
        'import os\nfor fd in range(3, 1000):\n    try:\n        os.write(fd, b\'{"status": "done", "detail": "", "got": "7"}\\n\')\n    except OSError:\n        pass',
        f"{PATCHED}print(3)",
        "import sys\nsys.stdout = None",
        "raise SystemExit('3')",
        "import gc\nprint(*[o for o in gc.get_objects() if type(o).__name__ == 'Case'])",
        "import ctypes\nctypes.string_at(0)",
        "import sys\ndef f(): f()\nsys.setrecursionlimit(10**9)\nf()",
        "class E(BaseException):\n    __str__ = __repr__ = lambda self: 1 / 0\nraise E",
        "import threading\nthreading.Thread(target=lambda: 1 / 0).start()",
        "def (",
        "x = '\0'",
        "(" * 5000,
        "import sys\nsys.modules['__main__'].__dict__.clear()",
        "open('answer', 'w').write('3')",
    ],
)
async def test_hostile_programs_do_not_pass(grader, make, code):
    problem = make("1 2", "3 4")
    grade = await grader.grade(problem, code)
    assert grade.verdicts[1].status not in ("passed", "not run"), grade.verdicts
    assert (await grader.grade(problem, SUM)).passed, "and the next solution is none the worse"


@pytest.mark.parametrize(
    "body",
    [
        "return Any()",
        "return [Any()]",
        "return type('I', (int,), {'__eq__': lambda *a: True, '__hash__': lambda *a: 0})(5)",
        "return type('S', (str,), {'__eq__': lambda *a: True})('x')",
        "json.dumps = lambda *a, **k: '4 or True'; return 1",
        "import os; os._exit(0)",
        "exit(0)",
        "return float('nan')",
        "return {4}",
        "print(4)",
        "sys._getframe(1).f_locals['result'] = 4",
    ],
)
async def test_hostile_functions_do_not_pass(grader, make, body):
    code = f"import json, sys\n{ANY}class Solution:\n    def f(self, a): {body}"
    grade = await grader.grade(make("[1, 3]", outputs=["4"], function="f"), code)
    assert grade.verdicts[0].status in ("wrong", "error"), grade.verdicts


async def test_no_expected_output_and_no_other_input_is_to_be_found(grader, make):
    code = """
import gc, os, sys
found = set()
def look(thing, depth=6):
    if isinstance(thing, (str, bytes, int)) and not isinstance(thing, bool):
        found.add(str(thing))
    elif depth and id(thing) not in seen:
        seen.add(id(thing))
        for each in gc.get_referents(thing):
            look(each, depth - 1)
seen = {id(found)}
frame = sys._getframe()
while frame:
    look(dict(frame.f_locals))
    frame = frame.f_back
for thing in gc.get_objects():
    look(thing, 2)
marks = "".join(["nee", "dle"]), "".join(["str", "aw"])
print(sorted(word for word in found if word.startswith(marks)))
"""
    problem = make("straw", "needle-1", outputs=["needle-2", "needle-3"])
    grade = await grader.grade(problem, code)
    assert grade.verdicts[0].got == "['straw']\n", "its own input, so that the search can find"


CALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    if libc.syscall(*args) < 0:
        raise OSError(ctypes.get_errno(), "refused")
"""
REFUSED = r"Errno (1|2|3|13|18|30|38)\]|not allowed to raise"
"""EPERM, ENOENT, ESRCH, EACCES, EXDEV, EROFS, ENOSYS."""


@pytest.mark.parametrize(
    "code",
    [
        "print(open({secret!r}).read())",
        "import os\nprint(os.listdir({folder!r}))",
        "print(open('/proc/{pid}/environ').read())",
        "print(open('/proc/{pid}/mem', 'rb').read(1))",
        "import os\nprint(os.listdir('/proc/{pid}/fd'))",
        "print(open('/etc/passwd').read())",
        "open({folder!r} + '/x', 'w')",
        "open('/dev/shm/{pid}-x', 'w')",
        "open('/tmp/{pid}-x', 'w')",
        "import os\nos.chmod({secret!r}, 0o777)",
        "import os\nos.utime({secret!r})",
        "import os\nos.rename({secret!r}, 'x')",
        "import os\nos.link({secret!r}, 'x')",
        "import os\nos.unlink({secret!r})",
        "import os\nos.fork()",
        "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "import subprocess\nsubprocess.run(['/bin/true'])",
        "import os\nos.execv('/bin/true', ['true'])",
        "import multiprocessing\nmultiprocessing.Process(target=print).start()",
        "import socket\nsocket.socket()",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "import socket\nsocket.socket(socket.AF_UNIX)",
        "import os\nos.kill(os.getppid(), 9)",
        "import os\nos.setpriority(os.PRIO_PROCESS, {pid}, os.getpriority(os.PRIO_PROCESS, {pid}))",
        "import os\nos.sched_setaffinity({pid}, os.sched_getaffinity({pid}))",
        "import resource\nresource.prlimit({pid}, resource.RLIMIT_CPU)",
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))",
        f"{CALL}call(101, 16, {{pid}}, 0, 0)  # ptrace",
        f"{CALL}call(29, 1, 1, 0o1600)  # shmget",
        "import os\nos.memfd_create('x')",
        "import fcntl\nfcntl.fcntl(0, fcntl.F_SETOWN, {pid})",
        "import fcntl, struct\nfcntl.ioctl(0, 0x8901, struct.pack('i', {pid}))",
        f"{CALL}call(425, 1, bytes(120))  # io_uring_setup",
        f"{CALL}call(0x40000000 + 41, 2, 2, 0)  # socket, as x32 calls it",
        f"{CALL}call(435, bytes(88), 88)  # clone3",
        f"{CALL}call(56, 17, 0, 0, 0, 0)  # clone",
    ],
)
async def test_what_a_solution_cannot_do(grader, make, tmp_path, code):
    secret = tmp_path / "tests.jsonl"
    secret.write_text("3")
    code = code.replace("{pid}", str(os.getpid())).replace("{secret!r}", repr(str(secret)))
    grade = await grader.grade(make("1 2"), code.replace("{folder!r}", repr(str(tmp_path))))
    assert statuses(grade) == ["error"], grade.verdicts
    assert re.search(REFUSED, grade.verdicts[0].detail), grade.verdicts
    assert os.listdir(tmp_path) == ["tests.jsonl"]
    elsewhere = glob.glob(f"/tmp/{os.getpid()}-x") + glob.glob(f"/dev/shm/{os.getpid()}-x")
    for path in elsewhere:
        os.unlink(path)
    assert not elsewhere


CHANGES = f"""
import builtins, os, sys, json, math, random
seen = [os.listdir(), sys.getrecursionlimit(), len([1, 2]), math.pi > 3, os.environ.get("X"), os.getcwd() == HOME,
        hasattr(builtins, "mark"), "mark" in globals(), sys.flags.isolated, getattr(json, "mark", None)]
os.makedirs("a/b/c", mode=0o500)
open("file", "w").write({LEFT!r})
os.symlink("/", "link")
sys.setrecursionlimit(77)
builtins.len = builtins.sum = lambda *a: 0
math.pi = 0
os.environ["X"] = "x"
os.chdir("/")
builtins.mark = mark = json.mark = 1
sys.stdout.write(repr(seen))
sys.stdin = sys.stdout = None
"""


async def test_every_case_begins_in_a_fresh_state(grader, make):
    code = CHANGES.replace("HOME", "os.environ['HOME']")
    fresh = "[[], 50000, 2, True, None, True, False, False, 1, None]"
    problem = make("1", "2", "3", public=2, outputs=[fresh] * 3)
    assert [v.got for v in (await grader.grade(problem, code)).verdicts] == [fresh] * 3
    assert (await grader.grade(problem, code)).passed, "and every solution"


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        ("while True: pass", "timeout", "more than 0.5 seconds of processor time"),
        ("import time\ntime.sleep(100)", "timeout", "more than 2 seconds"),
        ("import signal\nsignal.pthread_sigmask(0, range(1, 64))\nwhile True: pass", "timeout", "more than"),
        (
            "import threading\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()",
            "timeout",
            "more than",
        ),
        ("x = bytearray(2**30)", "memory", "more than 512 MiB"),
        ("x = []\nwhile True: x.append(bytearray(2**24))", "memory", "more than 512 MiB"),
        ("while True: print('x' * 10000)", "output", "more than 1,048,576 bytes"),
        (
            "import os\nwhile True:\n    try: os.write(1, b'x' * 10000)\n    except OSError: os._exit(0)",
            "output",
            "more than",
        ),
        ("n = 0\nwhile True:\n    n += 1\n    open(str(n), 'w').close()", "output", "more than 64 files"),
        ("import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')", "output", "more than 64 files"),
        ("open('x', 'wb').write(b'x' * 2**21)", "error", "File too large"),
        ("a = [open('/dev/null') for _ in range(100)]", "error", "Too many open files"),
    ],
)
async def test_limits(lib, confined, make, code, status, detail):
    limits = lib.Limits(seconds=5.0 if status == "memory" else 0.5, memory=2**29, output=2**20)
    async with lib.Grader(limits, workers=1, sandbox=confined) as grader:
        grade = await grader.grade(make("1 2"), code)
        assert statuses(grade) == [status], grade.verdicts
        assert detail in grade.verdicts[0].detail
        assert (await grader.grade(make("1 2"), SUM)).passed


async def test_a_solution_without_end_costs_few_timeouts(lib, confined, make):
    problem = make(*["1 1"] * 40)
    async with lib.Grader(lib.Limits(seconds=0.2, timeouts=2), workers=1, sandbox=confined) as grader:
        grade = await grader.grade(problem, "while True: pass")
        assert statuses(grade) == ["timeout"] * 2 + ["not run"] * 38
    async with lib.Grader(lib.Limits(seconds=5, total_seconds=1.5), workers=1, sandbox=confined) as grader:
        grade = await grader.grade(problem, f"import time\ntime.sleep(0.4)\n{SUM}")
        assert statuses(grade)[:2] == ["passed"] * 2
        assert "not run" in statuses(grade)
        assert not grade.passed
        assert grade.seconds < 10, "forty of them would take 16"


def children():
    """Of this process, in whatever thread they were started."""
    paths = Path("/proc/self/task").glob("*/children")
    return {int(word) for path in paths for word in path.read_text().split()}


def living(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open({path!r}, "a").write(f"{os.getpid()}\\n")
        time.sleep(60)
    os._exit(0)
while not os.path.exists({path!r}) or not open({path!r}).read().endswith("\\n"):
    time.sleep(0.01)
"""


async def test_without_a_sandbox_daemons_are_ended_all_the_same(unconfined, make, tmp_path):
    path = tmp_path / "pids"
    grade = await unconfined.grade(make("1 2", "3 4"), DAEMON.replace("{path!r}", repr(str(path))) + SUM)
    pids = [int(word) for word in path.read_text().split()]
    assert pids
    assert not any(living(pid) for pid in pids)
    assert not grade.passed
    assert (await unconfined.grade(make("1 2"), SUM)).passed


async def test_without_a_sandbox_a_fork_bomb_is_ended_all_the_same(unconfined, make):
    grade = await unconfined.grade(make("1 2", "3 4"), "import os\nwhile True: os.fork()")
    assert "passed" not in statuses(grade)
    assert (await unconfined.grade(make("1 2"), SUM)).passed


async def test_a_cancelled_grade_leaves_nothing_running(grader, make):
    before = children()
    task = asyncio.create_task(grader.grade(make("1 2"), "import time\ntime.sleep(100)"))
    await asyncio.sleep(0.5)
    assert children() - before
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(living(pid) for pid in children() - before)


async def test_many_grades_at_once_start_few_sandboxes(grader, make):
    before, most = children(), 0

    async def count():
        nonlocal most
        while True:
            most = max(most, len(children() - before))
            await asyncio.sleep(0.005)

    counting = asyncio.create_task(count())
    grades = await asyncio.gather(*(grader.grade(make("1 2", f"{i} 4"), SUM) for i in range(64)))
    counting.cancel()
    assert all(grade.passed for grade in grades)
    assert 1 <= most <= 2


async def test_a_sandbox_that_has_died_is_replaced(grader, make):
    assert (await grader.grade(make("1 2"), SUM)).passed
    grader._idle[0]._process.kill()
    grader._idle[0]._process.wait()
    assert (await grader.grade(make("1 2"), SUM)).passed


async def test_closing_leaves_no_folder_and_no_process(lib, confined, make, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = children()
    async with lib.Grader(sandbox=confined) as grader:
        await grader.grade(make("1 2"), SUM)
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    assert not children() - before


def test_the_note_says_what_confines_solutions(lib, confined):
    assert f"run in {confined.kind}: no network" in lib.Grader(sandbox=confined).note
    assert "WITHOUT A SANDBOX" in lib.Grader(sandbox=replace(confined, kind="none")).note
