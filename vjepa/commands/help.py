"""The help of a verb, read from the source text of its function: importing the function would take seconds.

`--help_all` is the parser's own help, which imports it; for a fit it lists every setting of the trainer.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from docstring_parser import parse

from vjepa.commands.verbs import VERBS, Verb

CONFIG_HELP = "a YAML file with any of the settings below"
RECIPE_HELP = "Pre-train, or validate a checkpoint, as a recipe says; the twenty flags used most:"
RECIPE_FLAGS = {  # of some 120 that fit and validate have
    "config": "the recipe, a YAML file; give it again for an overlay that changes the recipe",
    "print_config": "show all settings, and stop",
    "ckpt_path": "checkpoint: a file, last (the newest of the runs in the folder), or auto (as last; from the "
    "start if no run exists)",
    "seed_everything": "seed of weights, masks and data",
    "trainer.default_root_dir": "folder of the runs",
    "trainer.max_steps": "optimiser steps of the run",
    "trainer.max_time": "longest time of the run, as DD:HH:MM:SS",
    "trainer.accelerator": "cpu, gpu, mps or auto",
    "trainer.devices": "number of devices, a list of them, or auto",
    "trainer.strategy": "how devices share the work: ddp, fsdp2 or auto",
    "trainer.precision": "32-true, bf16-mixed or 16-mixed",
    "trainer.accumulate_grad_batches": "batches per optimiser step",
    "model.lr.init_args.peak": "highest learning rate, of a schedule that has one",
    "model.recompute_blocks": "compute activations twice, which saves memory",
    "data.train": "manifest, folder, video or shards to train on",
    "data.val": "the same for validation",
    "data.root": "folder that relative paths in the manifests start from",
    "data.batch_size": "clips per batch of one device",
    "data.num_workers": "processes that decode; 0 decodes in the main one",
    "data.decoder": "auto, pyav, torchcodec, decord, frames, or the class path of your own decoder",
}


@dataclass(frozen=True)
class Flag:
    """A parameter of a verb, as text: its type, its default (None if it is required), and its help."""

    name: str
    type: str
    default: str | None
    help: str


def help_of(name: str) -> str:
    """Return the text of `vjepa NAME --help`: an example, what the verb does, and its flags."""
    verb = VERBS[name]
    module, function = (verb.described or verb.target).split(":")
    parser = argparse.ArgumentParser(
        prog=f"vjepa {name}", usage=f"vjepa {name} {_arguments(verb)}[options]", add_help=False
    )
    about, flags = (RECIPE_HELP, []) if verb.forwards and not verb.described else described(module, function)
    parser.description = about
    _list(parser, "options", flags, (verb.positional or "").split())
    more = [Flag("help_all", "", "", "show every setting, with its type and default")]
    if verb.forwards:
        _list(parser, "the recipe", [Flag(key, "VALUE", "", text) for key, text in RECIPE_FLAGS.items()], [])
    else:
        more = [Flag("config", "FILE", "", CONFIG_HELP), *more]
    _list(parser, "more", more, [])
    return f"example: {verb.example}\n\n{parser.format_help()}".rstrip()


def described(module: str, function: str) -> tuple[str, list[Flag]]:
    """Return the first line of a function's docstring and its flags, with those of its groups."""
    source = _source(module)
    node: ast.AST = source
    for part in function.split("."):
        node = next(n for n in getattr(node, "body", []) if getattr(n, "name", None) == part)
    assert isinstance(node, ast.FunctionDef)
    doc = parse(ast.get_docstring(node) or "")
    helps = {param.arg_name: param.description or "" for param in doc.params}
    flags: list[Flag] = []
    for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        group = _group(module, arg.annotation)
        if group is None:
            flags.append(_flag(module, arg.arg, arg.annotation, default, helps.get(arg.arg, "")))
        else:
            prefix = "" if isinstance(arg.annotation, ast.Subscript) else f"{arg.arg}."
            flags += _fields(*group, prefix=prefix)
    return doc.short_description or "", flags


def _list(parser: argparse.ArgumentParser, title: str, flags: list[Flag], positional: list[str]) -> None:
    shown = parser.add_argument_group(title)
    for flag in sorted(flags, key=lambda flag: flag.name not in positional):
        default = "" if flag.default in ("", "None") else f" (default: {flag.default})"
        text = flag.help + (" (required)" if flag.default is None else default)
        name, shape = f"--{flag.name}", flag.type
        if flag.name in positional:
            name, shape = flag.name, flag.name.upper()
        if shape:
            shown.add_argument(name, metavar=shape, help=text.replace("%", "%%"))
        else:
            shown.add_argument(name, action="store_true", help=text)


def _arguments(verb: Verb) -> str:
    return "".join(f"{name.upper()} " for name in (verb.positional or "").split())


def _flag(module: str, name: str, kind: ast.expr | None, default: ast.expr | None, text: str) -> Flag:
    assert kind is not None, f"{module}: {name} has no type"
    value = None if default is None else ast.unparse(_value(module, default)).strip("'")
    return Flag(name, _type(module, kind), value, " ".join(text.split()))


def _fields(module: str, node: ast.ClassDef, *, prefix: str) -> Iterator[Flag]:
    """Yield the flags of a group, which is a dataclass."""
    helps = {p.arg_name: p.description or "" for p in parse(ast.get_docstring(node) or "").params}
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            name = line.target.id
            flag = _flag(module, name, line.annotation, line.value, helps.get(name, ""))
            yield Flag(prefix + name, flag.type, flag.default, flag.help)


def _group(module: str, annotation: ast.expr | None) -> tuple[str, ast.ClassDef] | None:
    """Return the dataclass of an annotation, Flat[X] or X, and the module with its source."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Flat":
        annotation = annotation.slice
    if not isinstance(annotation, ast.Name):
        return None
    found = _find(module, annotation.id)
    return (found[0], found[1]) if found and isinstance(found[1], ast.ClassDef) else None


def _type(module: str, kind: ast.expr) -> str:
    """Return a type for display: {a,b} for a choice, else as in the source, without None."""
    if isinstance(kind, ast.BinOp):
        sides = [_type(module, side) for side in (kind.left, kind.right)]
        return "|".join(side for side in sides if side != "None")
    if isinstance(kind, ast.Name) and (found := _find(module, kind.id)) and isinstance(found[1], ast.Assign):
        return _type(found[0], found[1].value)
    if isinstance(kind, ast.Subscript) and ast.unparse(kind.value) == "Literal":
        choices = kind.slice.elts if isinstance(kind.slice, ast.Tuple) else [kind.slice]
        return "{" + ",".join(str(ast.literal_eval(choice)) for choice in choices) + "}"
    return ast.unparse(kind)


def _value(module: str, default: ast.expr) -> ast.expr:
    """Return a default; of a constant of the module, or a field of a class, that one's value."""
    if isinstance(default, ast.Attribute) and isinstance(default.value, ast.Name):
        found = _find(module, default.value.id)
        lines = found[1].body if found and isinstance(found[1], ast.ClassDef) else []
        values = (
            x.value for x in lines if isinstance(x, ast.AnnAssign) and ast.unparse(x.target) == default.attr
        )
        return next(values, None) or default
    found = _find(module, default.id) if isinstance(default, ast.Name) else None
    return found[1].value if found and isinstance(found[1], ast.Assign) else default


def _find(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """Return the statement that defines `name`, and its module; an import within vjepa is followed."""
    for node in _source(module).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vjepa"):
            if name in [alias.asname or alias.name for alias in node.names]:
                original = next(a.name for a in node.names if name in (a.asname, a.name))
                return _find(str(node.module), original)
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets):
            return module, node
    return None


@cache
def _source(module: str) -> ast.Module:
    """Return the parsed text of a module, which is found and not imported."""
    path, spec = None, None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        spec = PathFinder.find_spec(name, path)
        assert spec is not None, f"there is no module {name}"
        path = getattr(sys.modules.get(name), "__path__", spec.submodule_search_locations)
    assert spec is not None and spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
