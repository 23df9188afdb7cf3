"""Names, files and small pieces of code that the templates are filled with."""

# ruff: noqa: SIM905

from __future__ import annotations

from dataclasses import dataclass
from random import Random

NOUNS = (
    "account_book album anchor archive atlas auction badge basket beacon billing bridge bucket cache calendar canvas catalog "
    "channel cipher clock cluster codec compass counter courier cursor daemon dataset deck diary dispatcher engine "
    "event exporter feed filter forecast gallery gateway geometry grammar graph harbor importer inbox indexer invoice "
    "journal kernel ledger lexer library locker logger mailer mapper matrix menu metrics mixer monitor notifier orders "
    "oven packer palette payment pipeline planner player pool portal printer profile queue quota ranking recipe "
    "registry report router sampler scanner schedule scoring sensor session shapes signal sorter stack storage "
    "stream survey table ticket timeline token tracker tree upload validator vault voucher wallet weather widget worker"
).split()
VERBS = (
    "apply build check clean close collect compute convert count create decode encode export fetch filter find flatten "
    "format group handle index init insert list make merge move normalize open order pack pick plot push rank read "
    "render reset resize resolve round save scale scan score send show sort split start store sum swap total track "
    "trim update validate visit wrap"
).split()
OBJECTS = (
    "area average batch block body cart color cost date distance entry factor field frame header height image item key "
    "label limit line list mask mean message name node number offset page pair path point price query rate record "
    "result row rule sample score segment size slot sum tag tax text time title unit value vector weight width word"
).split()
FOLDERS = (
    "src app lib core backend frontend api services models handlers scripts tools config internal pkg plugins web "
    "jobs data src/core src/api app/models lib/net packages/ui server/routes tests/unit"
).split()
EXTENSIONS = ("py",) * 14 + ("js", "ts", "go", "rs", "md", "txt", "json", "toml", "yaml", "html", "css", "sh", "c")
SPECIAL = (
    "Makefile Dockerfile package.json pyproject.toml setup.cfg CHANGELOG.md LICENSE .gitignore docs/guide.md docs/api.md "
    "tsconfig.json docker-compose.yml go.mod Cargo.toml src/App.tsx config/settings.yaml .env.example CONTRIBUTING.md "
    "notebooks/intro.ipynb static/style.css templates/base.html conf.ini docs/usage.rst tox.ini"
).split()
LANGUAGES = (
    ("JavaScript", "js"), ("TypeScript", "ts"), ("Go", "go"), ("Rust", "rs"), ("Markdown", "md"), ("JSON", "json"),
    ("YAML", "yaml"), ("shell", "sh"), ("HTML", "html"), ("CSS", "css"), ("Ruby", "rb"), ("SQL", "sql"), ("C", "c"),
    ("Python", "py"), ("Python", "py"), ("py", "py"), ("TOML", "toml"), ("csv", "csv"), ("txt", "txt"), ("Java", "java"),
)  # fmt: skip
MODULES = (
    "numpy asyncio pandas click flask yaml json sqlite3 logging argparse redis httpx boto3 pydantic jinja2 socket pathlib"
).split()
MARKERS = "FIXME HACK XXX DEPRECATED NOQA BUG WARNING OPTIMIZE REVIEW print( breakpoint() password api_key console.log".split()
TYPOS = (
    ("teh", "the"), ("adress", "address"), ("seperate", "separate"), ("occured", "occurred"), ("lenght", "length"),
    ("enviroment", "environment"), ("wich", "which"), ("definately", "definitely"), ("retreive", "retrieve"),
    ("succesful", "successful"), ("paramter", "parameter"), ("untill", "until"), ("dependancy", "dependency"),
)  # fmt: skip
SENTENCES = (
    "Nightly build notes", "All systems nominal", "Draft, do not publish", "Hello from the build", "Ready to ship",
    "Meeting moved to Friday", "Release candidate 2", "Buy milk and bread", "Version 2 starts here", "Good morning",
    "Welcome aboard", "See the wiki for details", "Work in progress", "Connection closed", "Nothing to report",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """A small file, one line of it that is to change, and how a person would ask for it."""

    lines: tuple[str, ...]
    number: int
    new: str
    request: str

    @property
    def old(self) -> str:
        return self.lines[self.number - 1]

    @property
    def before(self) -> str:
        return "\n".join(self.lines) + "\n"

    @property
    def after(self) -> str:
        return "\n".join((*self.lines[: self.number - 1], self.new, *self.lines[self.number :])) + "\n"


class Words:
    """Draws names from a seeded source; a name that was drawn is spelled as in real repositories."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.pick = random.choice

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def function(self) -> str:
        return f"{self.pick(VERBS)}_{self.pick(OBJECTS)}"

    def class_name(self) -> str:
        return f"{self.pick(OBJECTS).title()}{self.pick(NOUNS).title().replace('_', '')}"

    def variable(self) -> str:
        return self.pick((f"{self.pick(OBJECTS)}_{self.pick(OBJECTS)}", self.pick(OBJECTS), f"{self.pick(NOUNS)}_id"))

    def stem(self) -> str:
        return self.pick((self.pick(NOUNS), self.pick(NOUNS), f"{self.pick(OBJECTS)}_{self.pick(NOUNS)}"))

    def path(self, extension: str | None = None) -> str:
        if extension is None and self.chance(0.15):
            return self.pick(SPECIAL)
        return self._placed(f"{self.stem()}.{extension or self.pick(EXTENSIONS)}")

    def test_path(self) -> str:
        name = f"test_{self.stem()}.py"
        return self.pick((name, f"tests/{name}", f"tests/{name}", f"tests/unit/{name}"))

    def folder(self) -> str:
        return self.pick(FOLDERS)

    def change(self) -> Change:
        return self.pick((self._operator, self._constant, self._default, self._text, self._setting))()

    def python(self) -> tuple[str, ...]:
        """The lines of a short Python file."""
        function, first = self.function(), self.pick(OBJECTS)
        return self.pick(
            (
                (f"import {self.pick(MODULES)}", "", f"def {function}({first}):", f"    return {first}.strip()"),
                (f"def {function}({first}, scale):", f"    return {first} * scale"),
                (f"class {self.class_name()}:", "    def __init__(self, size):", "        self.size = size"),
            )
        )

    def _placed(self, name: str) -> str:
        return f"{self.folder()}/{name}" if self.chance(0.45) else name

    def _operator(self) -> Change:
        function, (first, second) = self.function(), self.random.sample(OBJECTS, 2)
        wrong, right = self.random.sample("+-*/%", 2)
        new = f"    return {first} {right} {second}"
        request = self.pick(
            (f"{function}() should return {first} {right} {second}", f"make {function} return {first} {right} {second}")
        )
        return Change((f"def {function}({first}, {second}):", f"    return {first} {wrong} {second}"), 2, new, request)

    def _constant(self) -> Change:
        name = "_".join(self.random.sample(OBJECTS, 2)).upper()
        old, new = self.random.sample(range(2, 500), 2)
        lines = (f"{name} = {old}", "", *self.python())
        return Change(lines, 1, f"{name} = {new}", self.pick((f"set {name} to {new}", f"{name} must be {new}")))

    def _default(self) -> Change:
        function, name = self.function(), self.pick(OBJECTS)
        old, new = self.random.sample(range(1, 90), 2)
        lines = (f"def {function}({name}={old}):", f"    return {name} + 1")
        return Change(
            lines, 1, f"def {function}({name}={new}):", f"the default of {name} in {function} should be {new}"
        )

    def _text(self) -> Change:
        function = self.function()
        old, new = self.random.sample(SENTENCES, 2)
        lines = (f"def {function}():", f'    print("{old}")')
        return Change(lines, 2, f'    print("{new}")', f'{function} should print "{new}"')

    def _setting(self) -> Change:
        keys = self.random.sample(OBJECTS, 3)
        values = [self.random.randint(1, 99) for _ in range(4)]
        lines = tuple(f"{key}: {value}" for key, value in zip(keys, values, strict=False))
        at = self.random.randint(1, 3)
        new = f"{keys[at - 1]}: {values[3]}"
        return Change(lines, at, new, f"change {keys[at - 1]} to {values[3]}")
