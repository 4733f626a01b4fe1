"""Line budgets and names of the house, by reading the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "vjepa").rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_WIDTH = 320, 60, 12
SMELLS = {"utils", "helpers", "common", "misc", "manager", "base2", "util", "helper"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# What is still over a budget. The lists may only shrink: an entry that is not needed fails the test
NOT_YET: dict[str, set[str]] = {}
READ_THE_PROCESS_YET: set[str] = set()


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(params=SOURCES, ids=name_of)
def source(request) -> Path:
    return request.param


def long_functions(tree: ast.AST) -> list[str]:
    functions = (node for node in ast.walk(tree) if isinstance(node, FUNCTIONS))
    spans = ((node.name, (node.end_lineno or 0) - node.lineno + 1) for node in functions)
    return [f"{name} is long: {lines} lines" for name, lines in spans if lines > MAX_FUNCTION_LINES]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of a function's parameters without `self` and `cls`."""
    given = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return [arg.arg for arg in given if arg.arg not in ("self", "cls")]


def fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """Return the fields of a dataclass or named tuple; none for any other class."""
    marks = " ".join(ast.unparse(mark) for mark in (*node.decorator_list, *node.bases))
    holds = "dataclass" in marks or "NamedTuple" in marks
    return [
        i for i in node.body if holds and isinstance(i, ast.AnnAssign) and "ClassVar" not in ast.unparse(i)
    ]


def wide_signatures(tree: ast.AST, above: str = "") -> list[str]:
    """Return public functions, constructors and dataclasses with too many parameters or fields."""
    widths: dict[str, int] = {}
    found: list[str] = []
    for node in ast.iter_child_nodes(tree):
        public = not getattr(node, "name", "_").startswith("_") or getattr(node, "name", "") == "__init__"
        if not public:
            continue
        name = f"{above}{node.name}"  # type: ignore[attr-defined]
        if isinstance(node, FUNCTIONS):
            widths[name] = len(parameters(node))
        elif isinstance(node, ast.ClassDef):
            widths[name] = len(fields(node))
            found += wide_signatures(node, f"{name}.")
    return [f"{name} is wide: {count}" for name, count in widths.items() if count > MAX_WIDTH] + found


def calls_of_locals(tree: ast.AST) -> list[str]:
    called = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return ["calls locals()"] if any(isinstance(f, ast.Name) and f.id == "locals" for f in called) else []


def over_budget(text: str) -> list[str]:
    """Return what in a file is over a budget: the fault, and after a colon its size."""
    tree, lines = ast.parse(text), len(text.splitlines())
    long_file = [f"file is long: {lines} lines"] if lines > MAX_FILE_LINES else []
    return long_file + long_functions(tree) + wide_signatures(tree) + calls_of_locals(tree)


def test_budgets(source):
    found = over_budget(source.read_text(encoding="utf-8"))
    kinds = sorted({each.partition(":")[0] for each in found})
    listed = sorted(NOT_YET.get(name_of(source), set()))
    limits = f"{MAX_FILE_LINES} lines per file, {MAX_FUNCTION_LINES} per function, {MAX_WIDTH} parameters or fields"
    assert kinds == listed, f"{name_of(source)}: {found}, NOT_YET has {listed}. Limits: {limits}, no locals()"


def test_the_list_names_real_files():
    assert sorted(set(NOT_YET) - {name_of(path) for path in SOURCES}) == []


def test_the_budgets_see_what_is_over_them():
    body = "\n".join(["    pass"] * MAX_FUNCTION_LINES)
    assert over_budget(f"def long():\n{body}") == [f"long is long: {MAX_FUNCTION_LINES + 1} lines"]
    assert over_budget("pass\n" * (MAX_FILE_LINES + 1)) == [f"file is long: {MAX_FILE_LINES + 1} lines"]
    names = ", ".join(f"a{i}" for i in range(MAX_WIDTH + 1))
    wide = (
        f"class Wide:\n    def __init__(self, *, {names}): pass\ndef f({names}): pass\ndef _f({names}): pass"
    )
    assert over_budget(wide) == ["f is wide: 13", "Wide.__init__ is wide: 13"]
    values = "".join(f"    a{i}: int\n" for i in range(MAX_WIDTH + 1))
    assert over_budget(f"@dataclass(frozen=True)\nclass Bag:\n{values}") == ["Bag is wide: 13"]
    assert over_budget(f"class Bag:\n{values}") == []
    assert over_budget("config = dict(locals())") == ["calls locals()"]


def test_names_say_what_a_file_holds(source):
    assert source.stem not in SMELLS, f"{name_of(source)}: find the noun"


def test_only_the_commands_read_their_process(source):
    tree = ast.parse(source.read_text(encoding="utf-8"))
    used = {(node.value.id, node.attr) for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}  # fmt: skip
    process = bool(used & {("os", "environ"), ("os", "getenv"), ("sys", "argv")})
    if name_of(source) in READ_THE_PROCESS_YET:
        assert process, f"{name_of(source)} is clean: take it off READ_THE_PROCESS_YET"
    else:
        allowed = source.parent == ROOT / "vjepa" / "commands"
        assert allowed or not process, f"{name_of(source)} reads the environment or sys.argv"


def test_every_folder_has_code():
    folders = {path for path in (ROOT / "vjepa").rglob("*") if path.is_dir() and path.name != "__pycache__"}
    folders = {path for path in folders if any(path.glob("*.py")) or not any(path.glob("__pycache__"))}
    assert not [name_of(path) for path in folders if not any(path.glob("*.py"))]
    for folder in folders:
        assert (folder / "__init__.py").exists(), f"{name_of(folder)}: no __init__.py"
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert modules, f"{name_of(folder)}: only an __init__.py"
