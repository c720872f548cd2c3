"""What a machine can check of the house: who imports whom, how long things are, what is documented, what is barred."""

import ast
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import (
    DOORS,
    HOME,
    PACKAGE,
    Function,
    Public,
    calls,
    constant,
    functions,
    imports,
    module_of,
    names_in,
    package_files,
    parameters,
    place,
    public_things,
    python_files,
    room_of,
    run_at_import,
    text_files,
    tree,
)

ROOMS = [
    "errors", "machine", "resample", "kernels", "networks", "weights", "engines", "pipeline", "export", "api",
    "losses", "metrics", "training", "apps",
]  # fmt: skip
"""Left to right: a room imports only from itself and from rooms to its left."""
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
NETWORKS = PACKAGE / "networks"
STYLE = ("style_layers", "style_dialects", "style_rates")
NETWORK_HELPERS = {"__init__", "spec", "layers", "discriminators", "features", "foreign", *STYLE}
NETWORK_HELPERS |= {"style_discriminator", "face_discriminators", "patch_discriminators", "translation_layers"}
NETWORK_HELPERS |= {"bands", "stages", "dense"}
NETWORK_IMPORTS = (
    "torch",
    "restorer.errors",
    "restorer.networks.spec",
    "restorer.networks.layers",
    *(f"restorer.networks.{name}" for name in (*STYLE, "stages", "dense", "translation_layers", "bands")),
    "restorer.kernels",
)
UNSAFE_MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code", "pty"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "hasattr", "os.system", "os.popen", "torch.load"}
LOSSY_CALLS = {"cv2.imread", "cv2.imwrite"}  # they turn, cut to 8 bits, and report failure by a value
MAY_PRINT = PACKAGE / "apps" / "cli"
TORCH_FREE = (
    "restorer",
    "restorer.errors",
    "restorer.machine",
    "restorer.networks",
    "restorer.apps.cli",
    "restorer.weights.records",
    "restorer.weights.find",
    "restorer.weights.fetch",
    "restorer.pipeline.settings",
    "restorer.pipeline.files",
    "restorer.pipeline.journal",
    "restorer.pipeline.picture",
)
MADE_AT_IMPORT = {
    "frozenset", "set", "tuple", "list", "dict", "range", "sorted", "field", "replace", "partial",
    "re.compile", "logging.getLogger", "np.dtype", "keys_like",
}  # fmt: skip
"""Calls that only make a value. Classes by their capital letter, methods of strings and partials are allowed too."""
STRING_METHODS = {"join", "lower", "upper", "split", "partition", "rpartition", "encode"}
HOSTS = {
    "arxiv.org", "github.com", "raw.githubusercontent.com", "git-lfs.github.com", "huggingface.co", "www.flickr.com",
    "drive.google.com", "download.openmmlab.com", "openmodeldb.info", "objectstorage.us-phoenix-1.oraclecloud.com",
    "efrosgans.eecs.berkeley.edu", "www.w3.org", "www.apache.org", "scikit-image.org", "download.pytorch.org",
    "example.org", "example.com",
}  # fmt: skip
"""Sources of papers, code and weights; an address elsewhere, such as of one package index, does not belong here."""
THIS_MACHINE = {"127.0.0.1", "localhost"}
ADDRESS = re.compile(
    r"https?://([\w-]+(?:\.[\w-]+)+)|(?<![\w./@-])((?:[a-z0-9-]+\.)+(?:org|com|io|net|co|ai|dev|cloud))\b(?![.(/]?\w)"
)
OF_ONE_MACHINE = re.compile(r"(?<![\w.)\]}/~-])/(?:work|root|tmp|opt|mnt)/\w")
PROMISE = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b(?! ?\(?#\d+)")


def complain(faults: Iterator[str] | list[str]) -> None:
    """Fail with every fault, one a line."""
    found = sorted(set(faults))
    assert not found, "\n" + "\n".join(found)


def test_rooms_import_leftwards_only():
    def faults() -> Iterator[str]:
        for path in package_files():
            room = room_of(module_of(path)) or path.stem
            assert room in (*ROOMS, *DOORS), f"{place(path)}: restorer/{room} is not a room of the house"
            for node, name in imports(path):
                target = room_of(name) if name.split(".")[0] == "restorer" else ""
                if target and room not in DOORS and ROOMS.index(target) > ROOMS.index(room):
                    yield f"{place(path, node)}: {room} imports {name}, which is to its right"

    complain(faults())


def test_every_file_is_in_a_room():
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in package_files()} <= {*ROOMS, *DOORS}


def test_a_network_imports_torch_spec_layers_kernels_and_errors_only():
    def faults() -> Iterator[str]:
        for name in constant(NETWORKS / "__init__.py", "NETWORKS"):
            for node, module in imports(NETWORKS / f"{name}.py"):
                allowed = any(module == known or module.startswith(f"{known}.") for known in NETWORK_IMPORTS)
                if not allowed and module.split(".")[0] not in sys.stdlib_module_names:
                    yield f"{place(NETWORKS / f'{name}.py', node)}: a network does not import {module}"

    complain(faults())


def test_no_file_is_longer_than_four_hundred_lines():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}
    complain([f"{place(path)}: {length} lines" for path, length in lengths.items() if length > LONGEST_FILE])


def test_no_function_is_longer_than_sixty_lines():
    complain(
        f"{place(path, node)}: {node.name} has {lines(node)} lines"
        for path in python_files()
        for node in functions(path)
        if lines(node) > LONGEST_FUNCTION
    )


def lines(node: Function) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_every_function_is_typed():
    def faults() -> Iterator[str]:
        for path in package_files():
            for node in functions(path):
                untyped = [each.arg for each in parameters(node) if each.annotation is None]
                if untyped or node.returns is None:
                    yield f"{place(path, node)}: {node.name} has no type for {', '.join(untyped) or 'its result'}"

    complain(faults())


def test_every_public_thing_is_documented():
    complain(f"{thing.place}: {thing.node.name} has no docstring" for thing in public() if not documented(thing))


def public() -> Iterator[Public]:
    return (thing for path in package_files() for thing in public_things(path))


def documented(thing: Public) -> bool:
    """Whether a thing, or for a network's `forward` its class, says what it is."""
    if thing.node.name == "forward" and thing.owner is not None:
        return bool(ast.get_docstring(thing.owner))
    return bool(thing.words)


def test_every_module_says_what_it_is_for():
    complain(f"{place(path)}: has no docstring" for path in python_files() if not ast.get_docstring(tree(path)))


def test_functions_on_tensors_state_shapes_in_their_first_line():
    def faults() -> Iterator[str]:
        for thing in public():
            is_function = not isinstance(thing.node, ast.ClassDef) and thing.node.name != "forward"
            if is_function and takes_tensors(thing.node) and not states_shapes(thing.words):
                yield f"{thing.place}: {thing.node.name} does not say shapes in its first line"

    complain(faults())


def takes_tensors(node: Function) -> bool:
    """Whether a parameter is a batch or several; dicts of weights are no batches."""
    found = [names_in(each.annotation) for each in parameters(node)]
    return any("Tensor" in names and names.isdisjoint({"dict", "Mapping", "Callable", "object"}) for names in found)


def states_shapes(words: str) -> bool:
    """`(N, C, H, W) -> same`, `(N,) -> ()`, or the like.

    >>> states_shapes("(N, C, H, W) in [0, 1] -> (): how far."), states_shapes("How far (see the paper).")
    (True, False)
    """
    first = words.partition("\n\n")[0]
    return bool(re.search(r"\([^()]*,[^()]*\)|\(\)|->", first))


def test_networks_state_shapes_in_their_class():
    def faults() -> Iterator[str]:
        for path in sorted(NETWORKS.glob("*.py")):
            for thing in public_things(path):
                is_module = (
                    isinstance(thing.node, ast.ClassDef) and "Module" in ast.unparse(thing.node).partition(":")[0]
                )
                if is_module and not states_shapes(thing.words):
                    yield f"{thing.place}: {thing.node.name} does not say shapes in its first line"

    complain(faults())


def test_every_network_has_its_file_its_spec_and_its_test_row():
    table = constant(NETWORKS / "__init__.py", "NETWORKS")
    rows = {
        call.args[0].value
        for call in calls(HOME / "tests" / "cases.py")
        if ast.unparse(call.func) == "Case" and isinstance(call.args[0], ast.Constant)
    }
    assert {name: name for name in table} == {name: spec_name(NETWORKS / f"{name}.py") for name in table}
    assert rows == set(table)


def spec_name(path: Path) -> object:
    """The name in `SPEC = NetworkSpec(name=...)`, or None."""
    specs = [call for call in calls(path) if ast.unparse(call.func) == "NetworkSpec"] if path.is_file() else []
    names = [keyword.value for spec in specs for keyword in spec.keywords if keyword.arg == "name"]
    return ast.literal_eval(names[0]) if len(names) == 1 else None


def test_every_file_of_networks_is_in_the_table_or_a_known_helper():
    stems = {path.stem for path in NETWORKS.glob("*.py")}
    assert stems - NETWORK_HELPERS == set(constant(NETWORKS / "__init__.py", "NETWORKS"))


def test_every_engine_has_its_file():
    engines = PACKAGE / "engines"
    table = constant(engines / "__init__.py", "ENGINES")
    complain(f"{name}: no restorer/engines/{name}.py" for name in table if not (engines / f"{name}.py").is_file())


def test_nothing_is_executed_that_a_file_or_user_brings():
    def faults() -> Iterator[str]:
        for path in package_files():
            for node, name in imports(path):
                if name.split(".")[0] in UNSAFE_MODULES:
                    yield f"{place(path, node)}: imports {name}"
            for call in calls(path):
                if ast.unparse(call.func) in UNSAFE_CALLS | LOSSY_CALLS:
                    yield f"{place(path, call)}: calls {ast.unparse(call.func)}"
                for keyword in call.keywords:
                    if keyword.arg in ("shell", "allow_pickle") and ast.unparse(keyword.value) != "False":
                        yield f"{place(path, call)}: {keyword.arg}={ast.unparse(keyword.value)}"

    complain(faults())


def test_attributes_are_asked_for_by_names_that_can_be_searched():
    complain(
        f"{place(path, call)}: the name that getattr takes is put together"
        for path in package_files()
        for call in calls(path)
        if ast.unparse(call.func) in ("getattr", "setattr") and isinstance(call.args[1], ast.JoinedStr | ast.BinOp)
    )


def test_errors_are_caught_by_their_narrowest_name():
    def faults() -> Iterator[str]:
        for path in package_files():
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.ExceptHandler) and catches_all(node):
                    yield f"{place(path)}:{node.lineno}: catches {ast.unparse(node.type) if node.type else 'all'}"

    complain(faults())


def catches_all(node: ast.ExceptHandler) -> bool:
    """Whether a handler takes whatever comes; BaseException may be caught to clean up and raise again."""
    if node.type is None or "Exception" in names_in(node.type):
        return True
    raises_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
    return "BaseException" in names_in(node.type) and not raises_again


def test_only_the_command_line_prints():
    complain(
        f"{place(path, call)}: prints"
        for path in package_files()
        for call in calls(path)
        if ast.unparse(call.func) in ("print", "pprint") and not path.is_relative_to(MAY_PRINT)
    )


def test_keyword_arguments_are_never_handed_on():
    def faults() -> Iterator[str]:
        for path in package_files():
            for node in functions(path):
                mine = node.args.kwarg.arg if node.args.kwarg else None
                for call in (each for each in ast.walk(node) if isinstance(each, ast.Call) and mine):
                    if any(k.arg is None and names_in(k.value) == {mine} for k in call.keywords):
                        yield f"{place(path, call)}: {node.name} hands **{mine} on"

    complain(faults())


def test_nothing_happens_at_import():
    def faults() -> Iterator[str]:
        for path in package_files():
            if path.stem == "__main__" or path.is_relative_to(MAY_PRINT):
                continue
            module = tree(path)
            yield from (f"{place(path, node)}: runs at import" for node in module.body if is_work(node))
            partials = {name for node in module.body for name in partial_names(node)}
            for node in run_at_import(module):
                if isinstance(node, ast.Call) and not only_makes(node.func, partials):
                    yield f"{place(path, node)}: {ast.unparse(node.func)}() runs at import"

    complain(faults())


def is_work(node: ast.stmt) -> bool:
    """A statement of a module that neither defines nor documents."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    return isinstance(node, ast.For | ast.While | ast.With | ast.Delete | ast.AugAssign | ast.Assert | ast.Raise)


def partial_names(node: ast.stmt) -> set[str]:
    """Names that a statement gives to partial(...)."""
    if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
        return set()
    return {ast.unparse(target) for target in node.targets if ast.unparse(node.value.func) == "partial"}


def only_makes(func: ast.expr, partials: set[str]) -> bool:
    """Whether calling `func` makes a value and does nothing else, as far as its name tells."""
    name = ast.unparse(func)
    if isinstance(func, ast.Attribute) and func.attr in STRING_METHODS:
        return True
    return name in MADE_AT_IMPORT | partials or name.rpartition(".")[2].lstrip("_")[:1].isupper()


@pytest.mark.parametrize(
    ("pattern", "what"),
    [(OF_ONE_MACHINE, "a path of one machine"), (PROMISE, "a promise without an issue number")],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_no_text_holds(pattern, what):
    complain(
        f"{place(path)}:{number}: {what}: {found[0]}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (found := pattern.search(line))
    )


def test_every_address_is_of_a_known_source():
    complain(
        f"{place(path)}: {host}"
        for path in text_files()
        for found in ADDRESS.findall(path.read_text(encoding="utf-8"))
        if (host := "".join(found)) not in HOSTS | THIS_MACHINE
    )


def run_python(words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", words], cwd=HOME, capture_output=True, text=True, timeout=60, check=False
    )


def test_what_needs_no_torch_does_not_import_it():
    done = run_python(
        f"import importlib, sys\nfor name in {TORCH_FREE}:\n"
        "    importlib.import_module(name)\n    assert 'torch' not in sys.modules, name"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [["--help"], ["models", "list"], ["upscale", "--help"]])
def test_quick_commands_do_not_import_torch(command):
    words = f"import sys; from restorer.apps.cli import main; main({command}); sys.exit('torch' in sys.modules)"
    done = run_python(words)
    assert done.returncode == 0, done.stderr


@pytest.mark.alone
@pytest.mark.parametrize("command", [["--help"], ["models", "list"]])
def test_quick_commands_answer_within_half_a_second(command):
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "restorer", *command], cwd=HOME, capture_output=True, check=True)
        return time.perf_counter() - start

    assert any(seconds() < 0.5 for _ in range(15)), "not once, whatever else the machine did"
