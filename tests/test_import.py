import subprocess
import sys
import time
from statistics import median

import pytest

import continualcode

HEAVY = {"torch", "tree_sitter", "tinker", "transformers", "numpy", "pydantic", "rich", "prompt_toolkit"}


def seconds_of(code):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def test_importing_loads_nothing_heavy():
    code = "import sys, continualcode; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert HEAVY & set(loaded.split()) == set()


def test_importing_costs_less_than_a_tenth_of_a_second():
    pairs = [(seconds_of("pass"), seconds_of("import continualcode")) for _ in range(7)]
    assert median(after for _, after in pairs) - median(before for before, _ in pairs) < 0.1


def test_public_names_are_sorted_complete_and_resolve():
    assert continualcode.__all__ == sorted(continualcode.__all__)
    assert len(set(continualcode.__all__)) == len(continualcode.__all__)
    for name in continualcode.__all__:
        assert getattr(continualcode, name) is not None
    assert set(continualcode.__all__) == {*continualcode._MODULE_OF, "__version__"}


def test_every_error_is_public():
    from continualcode import errors

    raised = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert raised <= set(continualcode.__all__)


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        continualcode.Agnet  # noqa: B018
