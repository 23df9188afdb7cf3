"""benchmarks/scale.py: its smallest points, and that it notices what grows too fast."""

import importlib
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def scale():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        module = importlib.import_module("scale")
        patch.setattr(module, "REPEATED", 1)
        yield module


@pytest.fixture(scope="module")
def instant(scale):
    return scale.Instant()


def points(scale, cost):
    return [scale.Point(size, cost(size), 0.0, size, None) for size in (10, 100, 1_000, 10_000)]


def test_a_quadratic_function_is_found_out(scale):
    assert scale.exponent((1, 4, 16, 64), (3, 48, 768, 12288)) == pytest.approx(2)
    line, good = scale.growth(points(scale, lambda size: 1e-6 * size**2), "cpu")
    assert not good
    assert "size^2.00" in line
    assert "MISSED" in line


def test_a_quadratic_part_is_found_out_behind_a_large_constant_that_hides_it_from_the_exponent(scale):
    hidden = points(scale, lambda size: 5.0 + 1e-4 * size + 2e-8 * size**2)
    assert scale.exponent([each.size for each in hidden], [each.cpu for each in hidden]) < scale.EXPONENT
    assert not scale.growth(hidden, "cpu")[1]


@pytest.mark.parametrize("cost", [lambda size: 0.02 * size, lambda size: 5.0 + 1e-4 * size])
def test_a_linear_function_passes_with_or_without_a_constant(scale, cost):
    assert scale.growth(points(scale, cost), "cpu")[1]


@pytest.mark.parametrize(
    ("loads", "sizes"), [("agents", (1, 2, 3)), ("tokens", (200, 400, 800)), ("lessons", (2, 4, 6))]
)
async def test_the_smallest_points_are_measured_and_what_takes_most_is_named(scale, instant, capsys, loads, sizes):
    found, _ = await scale.measure(getattr(scale, loads), sizes, instant)
    assert [point.size for point in found] == list(sizes)
    assert all(point.cpu > 0 and point.memory > 0 and point.journal > 0 for point in found)
    assert scale.growth(found, "journal")[1]
    shown = capsys.readouterr().out
    assert f"at {sizes[-1]} {loads} most time goes to " in shown
    assert ".py" in shown.splitlines()[-1]


async def test_a_session_learns_what_is_counted(scale, instant):
    async with scale.World(instant) as place:
        work, _ = await scale.lessons(place, 4)
        await work()
        text = place.journals[0].read_text()
    assert text.count('"event": "Learned"') == 2 + 4
    assert "LearnFailed" not in text
    assert "Malformed" not in text
