"""What hostile calls achieve: without approval, and approved, in each sandbox that this machine has.

python benchmarks/safety.py [--replies 10000] [--seed 0]

A call escapes when something outside the workspace changes or is read by a file tool, when the agent's own files change,
a secret is in its output, the network answers, another process ends, or something is left running; it hangs when it takes
ten seconds more than its time limit.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from safety_corpus import LEFT_OPEN, Case, corpus
from safety_replies import fuzz
from safety_swaps import all_swaps
from safety_world import Outcome, World, careless, cautious, outcome

from continualcode.tools import READ_ONLY, Sandbox, find_sandbox
from continualcode.tools.sandbox import KINDS, problem_with


async def unapproved(world: World, cases: Sequence[Case]) -> list[Outcome]:
    """The outcomes of calls that ran though nobody approved them, or achieved something all the same."""
    outcomes = [await outcome(world, case, find_sandbox(), cautious) for case in cases]
    return [each for each in outcomes if each.achieved or (each.ran and each.call.name not in READ_ONLY)]


async def approved(world: World, cases: Sequence[Case], sandbox: Sandbox) -> list[Outcome]:
    return [await outcome(world, case, sandbox, careless) for case in cases]


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"       {what}: {time.monotonic() - began:.0f} s")


def told(what: str, count: int, bad: Sequence[Outcome]) -> bool:
    print(f"{'ok    ' if not bad else 'MISSED'} {what}: {count} calls, {len(bad)} got through")
    for each in bad[:20]:
        print(
            f"         {each.kind}: {each.call.to_json()[:150]}: {', '.join(each.achieved) or 'ran'} ({each.seconds:.1f} s)"
        )
    return not bad


async def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replies", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    cases = corpus()
    certain = [case for case in cases if case.kind not in LEFT_OPEN]
    print(f"{len(cases)} hostile calls, {len({case.kind for case in cases})} classes; here: {find_sandbox().note}")
    good = []
    with World() as world:
        with timed("unapproved"):
            good.append(told("not approved", len(cases), await unapproved(world, cases)))
        for kind in KINDS:
            if (problem := problem_with(kind)) is not None:
                print(f"       {kind} is not tested: {problem}")
                continue
            sandbox = Sandbox(kind, "as tested")
            with timed(kind):
                outcomes = await approved(world, certain, sandbox)
            good.append(told(f"approved, in {kind}", len(outcomes), [each for each in outcomes if each.achieved]))
            print(f"       the longest took {max(each.seconds for each in outcomes):.1f} s, of {world.limit:g} allowed")
            open_ = await approved(world, [case for case in cases if case.kind in LEFT_OPEN], sandbox)
            through = Counter(each.kind for each in open_ if each.achieved)
            print(f"       left open by {kind}: {', '.join(through) or 'nothing'}")
        swaps = await all_swaps(world)
        good.append(told("swapped between approval and write", len(swaps), [each for each in swaps if each.achieved]))
    with timed("replies"):
        found = await fuzz(given.replies, given.seed)
    print(f"{'ok    ' if not found.faults else 'MISSED'} {found}")
    good.append(not found.faults)
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
