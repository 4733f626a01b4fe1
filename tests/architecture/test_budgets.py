"""Line budgets and names of the house, by reading the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "vjepa").rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_CONSTRUCTOR_ARGUMENTS = 400, 80, 12
SMELLS = {"utils", "helpers", "common", "misc", "manager", "base2", "util", "helper"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(params=SOURCES, ids=name_of)
def source(request) -> Path:
    return request.param


def test_file_is_short(source):
    lines = len(source.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{name_of(source)}: {lines} lines, limit {MAX_FILE_LINES}. Split it."


def long_functions(tree: ast.AST) -> list[str]:
    functions = (node for node in ast.walk(tree) if isinstance(node, FUNCTIONS))
    spans = ((node.name, (node.end_lineno or 0) - node.lineno + 1) for node in functions)
    return [f"{name}: {lines} lines" for name, lines in spans if lines > MAX_FUNCTION_LINES]


def wide_constructors(tree: ast.AST) -> list[str]:
    wide = []
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for item in node.body:
            if isinstance(item, FUNCTIONS) and item.name == "__init__":
                given = [arg.arg for arg in (*item.args.posonlyargs, *item.args.args, *item.args.kwonlyargs)]
                if len(given) - 1 > MAX_CONSTRUCTOR_ARGUMENTS:  # less `self`
                    wide.append(f"{node.name}: {len(given) - 1} arguments")
    return wide


def test_functions_are_short_and_constructors_narrow(source):
    tree = ast.parse(source.read_text(encoding="utf-8"))
    assert not long_functions(tree), f"{name_of(source)}: limit {MAX_FUNCTION_LINES} lines a function"
    assert not wide_constructors(tree), f"{name_of(source)}: limit {MAX_CONSTRUCTOR_ARGUMENTS} arguments"


def test_the_budgets_see_what_is_over_them():
    body = "\n".join(["    pass"] * MAX_FUNCTION_LINES)
    assert long_functions(ast.parse(f"def long():\n{body}")) == [f"long: {MAX_FUNCTION_LINES + 1} lines"]
    names = ", ".join(f"a{i}" for i in range(MAX_CONSTRUCTOR_ARGUMENTS + 1))
    wide = ast.parse(f"class Wide:\n    def __init__(self, *, {names}): pass")
    assert wide_constructors(wide) == [f"Wide: {MAX_CONSTRUCTOR_ARGUMENTS + 1} arguments"]


def test_names_say_what_a_file_holds(source):
    assert source.stem not in SMELLS, f"{name_of(source)}: find the noun"


def test_only_the_command_line_reads_its_process(source):
    tree = ast.parse(source.read_text(encoding="utf-8"))
    used = {(node.value.id, node.attr) for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}  # fmt: skip
    process = used & {("os", "environ"), ("os", "getenv"), ("sys", "argv")}
    assert source.name == "cli.py" or not process, f"{name_of(source)} reads {process}"


def test_every_folder_has_code():
    folders = {path for path in (ROOT / "vjepa").rglob("*") if path.is_dir() and path.name != "__pycache__"}
    folders = {path for path in folders if any(path.glob("*.py")) or not any(path.glob("__pycache__"))}
    assert not [name_of(path) for path in folders if not any(path.glob("*.py"))]
    for folder in folders:
        assert (folder / "__init__.py").exists(), f"{name_of(folder)}: no __init__.py"
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert modules, f"{name_of(folder)}: only an __init__.py"
