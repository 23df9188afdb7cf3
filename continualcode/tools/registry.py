"""Makes tools of typed functions and calls them by name; knows nothing of what any tool does."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Annotated, Any, cast, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from continualcode.errors import ConfigError, ToolError
from continualcode.protocols import Tool
from continualcode.tools.redact import Redactor
from continualcode.types import Json, JsonObject, ToolCall, ToolResult, ToolSpec, thaw

_Function = Callable[..., object]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?):$", re.MULTILINE)
_PARAMETER = re.compile(r"(\*{0,2}\w+)(?:\s*\([^)]*\))?\s*:\s*(.*)")
_RETURNS = (str, ToolResult, str | ToolResult)


class ToolRegistry:
    """The tools on offer, by name, in the order given. Plain typed functions are wrapped by `tool`.

    What a tool returns goes through `redact`, which by default hides the values of this environment's secrets.
    Raises ConfigError when two tools have one name.
    """

    def __init__(
        self, tools: Iterable[Tool | Callable[..., object]] = (), *, redact: Callable[[str], str] | None = None
    ) -> None:
        self._redact = redact or Redactor(os.environ)
        self._tools: dict[str, Tool] = {}
        for item in tools:
            made = item if isinstance(item, Tool) else tool(item)
            if made.spec.name in self._tools:
                raise ConfigError(f"two tools are named {made.spec.name!r}; give one of them another name")
            self._tools[made.spec.name] = made

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return tuple(item.spec for item in self._tools.values())

    def check(self, call: ToolCall) -> str | None:
        """What is wrong with the call (no such tool, wrong arguments), in words the model can act on, or None."""
        if call.name in self._tools:
            return self._tools[call.name].check(call)
        return f"no tool {call.name!r}{_nearest(call.name, self._tools)}; the tools are: {', '.join(self._tools) or 'none'}"

    async def call(self, call: ToolCall) -> ToolResult:
        """Checks the call and runs it. Whatever a tool raises becomes a result that is not ok."""
        result = await self._call(call)
        return replace(result, output=self._redact(result.output))

    async def _call(self, call: ToolCall) -> ToolResult:
        try:
            if (problem := self.check(call)) is not None:
                return ToolResult(problem, ok=False)
            return await self._tools[call.name](**_arguments_of(call))
        except ToolError as error:
            return ToolResult(str(error), ok=False)
        except Exception as error:
            # Broad, and only here: a plug-in's tool may fail of anything; the agent must outlive it, the model must hear.
            return ToolResult(f"tool {call.name!r} failed: {type(error).__name__}: {error}", ok=False)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __getitem__(self, name: str) -> Tool:
        return self._tools[name]


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A tool made of a function; make one with `tool`."""

    spec: ToolSpec
    function: _Function
    model: type[BaseModel]
    """One field per parameter, the parameter's name being the alias."""

    def check(self, call: ToolCall) -> str | None:
        try:
            self.arguments(call.arguments)
        except ToolError as error:
            return str(error)
        return None

    def arguments(self, given: JsonObject) -> Mapping[str, object]:
        """The arguments as the function will get them, defaults included. Raises ToolError when they do not fit."""
        try:
            values = self.model.model_validate(thaw(given))
        except ValidationError as error:
            raise ToolError(f"{_problems(error, self._parameters)}. Usage: {self._usage}") from error
        return {str(field.alias): getattr(values, name) for name, field in self.model.model_fields.items()}

    async def __call__(self, **arguments: Json) -> ToolResult:
        """Runs the function, in a thread if it is not async; cancelling does not stop a thread half-way."""
        values = self.arguments(arguments)
        if inspect.iscoroutinefunction(self.function):
            result = await self.function(**values)
        else:
            result = await asyncio.to_thread(self.function, **values)
        match result:
            case ToolResult():
                return result
            case str():
                return ToolResult(result)
        raise TypeError(f"it returned {type(result).__name__}, not str or ToolResult")

    @property
    def _parameters(self) -> Mapping[str, JsonObject]:
        return cast("Mapping[str, JsonObject]", self.spec.parameters["properties"])

    @property
    def _usage(self) -> str:
        shown = []
        for name, schema in self._parameters.items():
            kind = schema.get("type", "value")
            default = f" = {json.dumps(thaw(schema['default']))}" if "default" in schema else ""
            shown.append(f"{name}: {kind}{default}")
        return f"{self.spec.name}({', '.join(shown)})"


@overload
def tool(function: Callable[..., object], *, name: str | None = None) -> FunctionTool: ...
@overload
def tool(function: None = None, *, name: str | None = None) -> Callable[[Callable[..., object]], FunctionTool]: ...
def tool(
    function: Callable[..., object] | None = None, *, name: str | None = None
) -> FunctionTool | Callable[[Callable[..., object]], FunctionTool]:
    """Makes a tool of a typed function with a docstring, sync or async, that returns str or ToolResult.

        @tool
        def weather(city: str, days: int = 1) -> str:
            \"\"\"Forecast the weather.

            Args:
                city: its English name
            \"\"\"

    The docstring up to "Args:" is the description; the parameters' descriptions are its lines there, or
    `Annotated[..., Field(description=...)]`. Sync functions run in a thread. Raise ToolError to tell the model
    what could not be done. Raises ConfigError at once when docstring, an annotation or a sound name is missing.
    """
    if function is None:
        return lambda decorated: tool(decorated, name=name)
    if not (inspect.isroutine(function) or name):
        raise ConfigError(f"not a function and so without a name: {function!r}; pass tool(..., name=...)")
    name = name or str(getattr(function, "__name__", ""))
    if not _NAME.fullmatch(name):
        raise ConfigError(f"not a tool's name: {name!r}; use letters, digits, _ and -")
    description, documented = _read_docstring(name, function)
    model = _model_of(name, function, documented)
    return FunctionTool(ToolSpec(name, description, _schema_of(name, model)), function, model)


class _Schema(GenerateJsonSchema):
    """Without titles: they only repeat the names, and a small model has to read them all."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def generate(self, schema: CoreSchema, mode: Any = "validation") -> dict[str, Any]:
        made = super().generate(schema, mode)
        return {key: value for key, value in made.items() if key not in ("title", "additionalProperties")}


def _schema_of(name: str, model: type[BaseModel]) -> dict[str, Json]:
    try:
        made: dict[str, Json] = model.model_json_schema(by_alias=True, schema_generator=_Schema)
    except PydanticUserError as error:
        raise ConfigError(f"tool {name!r}: a parameter has no JSON schema: {error}") from error
    return {"type": "object", "properties": made.pop("properties", {}), **made}


def _model_of(name: str, function: _Function, documented: Mapping[str, str]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for index, parameter in enumerate(_parameters_of(name, function, documented)):
        default = ... if parameter.default is parameter.empty else parameter.default
        annotation = parameter.annotation
        if parameter.name in documented:
            annotation = Annotated[annotation, Field(description=documented[parameter.name])]
        fields[f"a{index}"] = (annotation, Field(default, alias=parameter.name))
    try:
        return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    except PydanticUserError as error:
        raise ConfigError(f"tool {name!r}: a parameter's type cannot be checked: {error}") from error


def _parameters_of(name: str, function: _Function, documented: Mapping[str, str]) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError as error:
        raise ConfigError(f"tool {name!r}: an annotation cannot be read: {error}") from error
    if signature.return_annotation not in _RETURNS:
        raise ConfigError(f"tool {name!r} must be annotated to return str or ToolResult")
    for parameter in signature.parameters.values():
        if parameter.annotation is parameter.empty:
            raise ConfigError(f"tool {name!r}: parameter {parameter.name!r} has no annotation")
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"tool {name!r}: parameter {parameter.name!r} cannot be passed by name")
    if unknown := documented.keys() - signature.parameters.keys():
        raise ConfigError(f"tool {name!r}: the docstring describes {sorted(unknown)}, which are no parameters")
    return list(signature.parameters.values())


def _read_docstring(name: str, function: _Function) -> tuple[str, dict[str, str]]:
    """The description, and what the Args section says of each parameter."""
    text = inspect.cleandoc(function.__doc__ or "")
    parts = _SECTION.split(text)
    description = parts[0].strip()
    if not description:
        raise ConfigError(f"tool {name!r} has no docstring; the model would not know what it is for")
    documented: dict[str, str] = {}
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        if title in ("Args", "Arguments", "Parameters"):
            documented |= _read_args(body)
    return description, documented


def _read_args(body: str) -> dict[str, str]:
    entries: list[tuple[str, str]] = []
    lines = inspect.cleandoc(body).splitlines()
    for line in lines:
        if (found := _PARAMETER.fullmatch(line)) is not None:
            entries.append((found[1].lstrip("*"), found[2].strip()))
        elif entries and line.strip():
            entries[-1] = (entries[-1][0], f"{entries[-1][1]} {line.strip()}".strip())
    return dict(entries)


def _problems(error: ValidationError, parameters: Mapping[str, JsonObject]) -> str:
    found = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"])
        match problem["type"]:
            case "missing":
                found.append(f"argument {where!r} is missing")
            case "extra_forbidden":
                found.append(f"unknown argument {where!r}{_nearest(where, parameters)}")
            case _:
                found.append(f"argument {where!r}: {problem['msg']}, not {_clip(repr(problem['input']))}")
    return "; ".join(found)


def _nearest(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _clip(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."


def _arguments_of(call: ToolCall) -> dict[str, Json]:
    return cast("dict[str, Json]", thaw(call.arguments))
