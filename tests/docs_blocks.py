"""Fenced blocks of a Markdown file."""

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
NO_RUN = re.compile(r"<!--\s*no-run:\s*\S.*?-->\s*$", re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int  # of its first line of code, counted from 1


def blocks_of(text: str) -> list[Block]:
    """All fenced blocks but those that follow `<!-- no-run: reason -->`."""
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start()) + 2)
        for found in FENCE.finditer(text)
        if not NO_RUN.search(text[: found.start()])
    ]


def commands_of(block: Block) -> list[str]:
    """Lines of a shell block that run `vjepa`, with continued lines joined and chains split."""
    lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
    steps = [step.strip() for line in lines for step in re.split(r"&&|\|\||;|\|", line.lstrip("$ "))]
    steps = [re.sub(r"^(\w+=\S*\s+)*", "", step) for step in steps]
    return [step for step in steps if re.match(r"vjepa\s", step)]


def files(root: Path) -> list[Path]:
    """The README and all documents below `docs`."""
    return [path for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))] if path.exists()]
