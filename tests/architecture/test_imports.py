"""Layers are kept, and importing does nothing."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = "{'torch', 'lightning', 'numpy', 'jsonargparse', 'av', 'timm', 'rich'}"


def in_fresh_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_layers_of_the_house():
    # in a process of its own: it sets up logging in a way that silences every logger there is
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_importing_vjepa_loads_nothing_heavy():
    loaded = in_fresh_python(f"import sys, vjepa; print(sorted({HEAVY} & set(sys.modules)))")
    assert loaded.strip() == "[]"


def test_help_loads_nothing_heavy():
    code = f"""
import sys
from vjepa.commands.app import VERBS, main
for name in ["", *VERBS]:
    assert main([*name.split(), "--help"]) == 0
print(sorted({HEAVY} & set(sys.modules)))
"""
    assert in_fresh_python(code).strip().splitlines()[-1] == "[]"
