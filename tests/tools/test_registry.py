import asyncio
import threading
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from continualcode.errors import ConfigError, ToolError
from continualcode.protocols import Tool
from continualcode.tools import ToolRegistry, tool
from continualcode.types import Json, ToolCall, ToolResult, ToolSpec, thaw


def weather(city: str, days: int = 1) -> str:
    """Forecast the weather.

    Args:
        city: its English name
        days (int): how many,
            from today

    Returns:
        A line of text.
    """
    return f"{city} {days}"


def test_a_typed_function_with_a_docstring_becomes_a_tool():
    spec = tool(weather).spec
    assert (spec.name, spec.description) == ("weather", "Forecast the weather.")
    assert thaw(spec.parameters) == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "its English name"},
            "days": {"type": "integer", "description": "how many, from today", "default": 1},
        },
        "required": ["city"],
    }
    assert isinstance(tool(weather), Tool)


def test_annotated_fields_constrain_and_describe():
    @tool(name="pick-one")
    def pick(index: Annotated[int, Field(ge=1, description="which, from 1")]) -> str:
        """Pick one."""
        return str(index)

    assert pick.spec.name == "pick-one"
    assert thaw(pick.spec.parameters["properties"]["index"]) == {
        "type": "integer",
        "minimum": 1,
        "description": "which, from 1",
    }
    problem = pick.check(ToolCall("pick-one", {"index": 0}))
    assert problem is not None
    assert "'index'" in problem
    assert "greater than or equal to 1, not 0" in problem


async def test_parameters_may_have_any_name_and_any_pydantic_type():
    class Point(BaseModel):
        x: int

    @tool
    def draw(schema: Point, copy: Literal["a", "b"], model_config: list[int], title: str = "none") -> str:
        """Draw."""
        return f"{schema.x} {copy} {model_config} {title}"

    assert set(draw.spec.parameters["properties"]) == {"schema", "copy", "model_config", "title"}
    result = await ToolRegistry([draw]).call(
        ToolCall("draw", {"schema": {"x": 1}, "copy": "b", "model_config": [1, 2]})
    )
    assert result == ToolResult("1 b [1, 2] none")


async def test_sync_functions_run_outside_the_event_loop_and_async_ones_inside():
    @tool
    def blocking() -> str:
        """Say where."""
        return str(threading.current_thread() is threading.main_thread())

    @tool
    async def flowing() -> ToolResult:
        """Say where."""
        await asyncio.sleep(0)
        return ToolResult(str(threading.current_thread() is threading.main_thread()), ok=False)

    registry = ToolRegistry([blocking, flowing])
    assert await registry.call(ToolCall("blocking", {})) == ToolResult("False")
    assert await registry.call(ToolCall("flowing", {})) == ToolResult("True", ok=False)


def test_a_function_that_cannot_be_a_tool_is_refused_at_once():
    def undocumented(x: int) -> str:
        return ""

    def unannotated(x) -> str:  # type: ignore[no-untyped-def]
        """Do."""
        return ""

    def silent(x: int):  # type: ignore[no-untyped-def]
        """Do."""

    def variadic(*x: int) -> str:
        """Do."""
        return ""

    def strange(x: threading.Lock) -> str:
        """Do."""
        return ""

    def misdocumented(x: int) -> str:
        """Do.

        Args:
            y: not there
        """
        return ""

    def forgotten(x: "Nowhere") -> str:  # type: ignore[name-defined] # noqa: F821
        """Do."""
        return ""

    for function, said in [
        (undocumented, "'undocumented' has no docstring"),
        (unannotated, "parameter 'x' has no annotation"),
        (silent, "must be annotated to return str or ToolResult"),
        (variadic, "'x' cannot be passed by name"),
        (strange, "a parameter's type cannot be checked"),
        (misdocumented, r"describes \['y'\], which are no parameters"),
        (forgotten, "annotation cannot be read: name 'Nowhere'"),
        (lambda: "", "not a tool's name: '<lambda>'"),
    ]:
        with pytest.raises(ConfigError, match=said):
            tool(function)


def test_plain_functions_are_wrapped_and_names_must_differ():
    registry = ToolRegistry([weather])
    assert [spec.name for spec in registry.specs] == ["weather"]
    assert "weather" in registry
    assert "wether" not in registry
    assert [registry["weather"]] == list(registry)
    assert len(registry) == 1
    with pytest.raises(ConfigError, match="two tools are named 'weather'"):
        ToolRegistry([weather, tool(weather)])


def test_an_unknown_tool_is_answered_with_the_nearest_and_with_all():
    def read(path: str) -> str:
        """Read."""
        return path

    problem = ToolRegistry([weather, read]).check(ToolCall("reed", {}))
    assert problem == "no tool 'reed' (did you mean 'read'?); the tools are: weather, read"


def test_wrong_arguments_are_answered_with_what_is_wrong_and_the_usage():
    registry = ToolRegistry([weather])
    assert registry.check(ToolCall("weather", {"city": "Bern", "days": "3"})) is None
    usage = "Usage: weather(city: string, days: integer = 1)"
    for arguments, said in [
        ({}, f"argument 'city' is missing. {usage}"),
        ({"city": "Bern", "day": 2}, f"unknown argument 'day' (did you mean 'days'?). {usage}"),
        ({"city": 5}, f"argument 'city': Input should be a valid string, not 5. {usage}"),
    ]:
        assert registry.check(ToolCall("weather", arguments)) == said


async def test_a_call_with_wrong_arguments_never_runs():
    ran = []

    @tool
    def mark(x: int) -> str:
        """Mark."""
        ran.append(x)
        return "ok"

    result = await ToolRegistry([mark]).call(ToolCall("mark", {"x": "no"}))
    assert not result.ok
    assert ran == []
    assert (await ToolRegistry([mark]).call(ToolCall("mark", {"x": "7"}))).ok
    assert ran == [7]


async def test_what_a_tool_raises_becomes_a_result():
    @tool
    def refuse() -> str:
        """Refuse."""
        raise ToolError("not today")

    @tool
    def break_down() -> str:
        """Break."""
        raise ZeroDivisionError("by zero")

    @tool
    def lie() -> str:
        """Lie."""
        return 3  # type: ignore[return-value]

    registry = ToolRegistry([refuse, break_down, lie])
    assert await registry.call(ToolCall("refuse", {})) == ToolResult("not today", ok=False)
    broken = await registry.call(ToolCall("break_down", {}))
    assert broken == ToolResult("tool 'break_down' failed: ZeroDivisionError: by zero", ok=False)
    assert "it returned int, not str or ToolResult" in (await registry.call(ToolCall("lie", {}))).output


async def test_cancellation_is_not_mistaken_for_a_failure():
    started = asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait."""
        started.set()
        await asyncio.sleep(60)
        return ""

    running = asyncio.create_task(ToolRegistry([wait]).call(ToolCall("wait", {})))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_any_object_with_the_three_methods_is_a_tool():
    class Echo:
        spec = ToolSpec("echo", "Say it again.", {"type": "object", "properties": {}})

        def check(self, call: ToolCall) -> str | None:
            return None if "text" in call.arguments else "text is missing"

        async def __call__(self, **arguments: Json) -> ToolResult:
            return ToolResult(str(arguments["text"]))

    registry = ToolRegistry([Echo()])
    assert await registry.call(ToolCall("echo", {"text": "hi"})) == ToolResult("hi")
    assert await registry.call(ToolCall("echo", {})) == ToolResult("text is missing", ok=False)
