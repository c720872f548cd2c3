"""The project's files as a machine reads them: syntax trees, imports, public names, and what runs at import."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
PACKAGE = HOME / "restorer"
DOORS = {"__init__", "__main__"}
"""Modules directly under restorer/ that may reach into every room."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Public:
    """A function, class or method that others may use."""

    place: str
    node: Function | ast.ClassDef
    owner: ast.ClassDef | None = None

    @property
    def words(self) -> str:
        return ast.get_docstring(self.node) or ""


@cache
def package_files() -> tuple[Path, ...]:
    return tuple(sorted(PACKAGE.rglob("*.py")))


@cache
def python_files() -> tuple[Path, ...]:
    """Every Python file that people write."""
    others = [path for room in ("tests", "benchmarks") for path in sorted((HOME / room).rglob("*.py"))]
    return (*package_files(), *others)


@cache
def text_files() -> tuple[Path, ...]:
    """Everything that is read as text, but for generated results and the licence."""
    loose = [HOME / name for name in ("README.md", "pyproject.toml", ".gitignore", ".ci/run")]
    prose = [path for room in ("tests", "benchmarks", "weights") for path in sorted((HOME / room).rglob("*.md"))]
    return (*python_files(), *(path for path in loose if path.is_file()), *prose)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def place(path: Path, node: ast.AST | None = None) -> str:
    """path:line, as an editor wants it."""
    line = f":{node.lineno}" if isinstance(node, ast.stmt | ast.expr) else ""
    return f"{path.relative_to(HOME).as_posix()}{line}"


def room_of(module: str) -> str:
    """restorer.pipeline.codecs.png -> pipeline; the doors belong to no room."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def module_of(path: Path) -> str:
    parts = path.relative_to(HOME).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[ast.stmt, str]]:
    """Every module that a file imports anywhere, for type checkers too; `from a import b` is a.b if b is a module."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place(path, node)}: imports name their module in full"
            for alias in node.names:
                yield node, _module_or_parent(f"{node.module}.{alias.name}", str(node.module))


def _module_or_parent(name: str, parent: str) -> str:
    path = HOME.joinpath(*name.split("."))
    return name if path.is_dir() or path.with_suffix(".py").is_file() else parent


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def public_things(path: Path) -> Iterator[Public]:
    """Public functions and classes of a module, and the public methods of those classes."""
    for node in _definitions(tree(path).body):
        yield Public(place(path, node), node)
        if isinstance(node, ast.ClassDef):
            yield from (Public(place(path, each), each, node) for each in _definitions(node.body, calls_too=True))


def _definitions(body: list[ast.stmt], *, calls_too: bool = False) -> Iterator[Function | ast.ClassDef]:
    for node in body:
        is_definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if is_definition and (not node.name.startswith("_") or (calls_too and node.name == "__call__")):
            yield node


def parameters(node: Function) -> list[ast.arg]:
    """All parameters, but for the one that a method is called on."""
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    every += [extra for extra in (node.args.vararg, node.args.kwarg) if extra is not None]
    return [each for each in every if each.arg not in ("self", "cls")]


def names_in(node: ast.AST | None) -> set[str]:
    """Names that an annotation is made of, also when it is a string."""
    if node is None:
        return set()
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval")
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a module that its import executes: all but the bodies of functions, and decorators."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                yield from run_at_import(default)
        return
    if isinstance(node, ast.Lambda):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.ClassDef) and child in node.decorator_list):
            yield from run_at_import(child)


def constant(path: Path, name: str) -> object:
    """The value of a module's constant, read without importing it."""
    for node in tree(path).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return ast.literal_eval(node.value)
    raise AssertionError(f"{place(path)} has no constant {name}")
