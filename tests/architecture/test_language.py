"""Plain technical English in docstrings, comments, strings and documents, by the table in style.md.

Files that are not clean yet stand in language_not_yet.txt. The list may only shrink: a listed file without a fault
fails the test. `python tests/architecture/test_language.py [FILE...]` prints faults; `--list` prints the new list.
"""

import ast
import io
import re
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HISTORY = {"docs/log.md"}
MAX_WORDS = 40  # per sentence of a docstring; aim at 30
UNIT = (
    "batch|channel|class|clip|core|day|device|epoch|file|frame|head|hour|image|level|mask|minute|pass|process|query|"
    "rank|row|run|second|shard|side|split|step|target|tick|token|tubelet|video|window|worker"
)
COUNTED = (
    r"batches|boxes|bytes|channels|clips|degrees|files|frames|ids|images|links?|numbers|pixels|radians|rows|sites|steps|"
    r"tokens|tubelets|videos|windows|once|twice|one|\d+ m?s|%"
)


@dataclass(frozen=True)
class Rule:
    """A phrase to avoid, what to write instead, and an example of each."""

    pattern: str
    bad: str
    good: str


RULES = (
    Rule(r"\b[Ss]ee that\b", "See that there are data", "Check that the data exist"),
    Rule(
        r"\b([Ll]eave|[Ll]eaves|[Ll]eft|[Ll]eaving) (\w+ )?(away|out)\b",
        "Leave it away",
        "Omit it: what is left",
    ),
    Rule(
        r"\bof (it|its|them|their) own\b(?=\W*$|[.,;:)]| (above|and|at|below|for|from|if|in|is|of|per|that|to|with)\b)",
        "an epoch of its own",
        "its own epoch; rows of its own clips",
    ),
    Rule(
        r"\b(taken|tak(e|es|ing)( (it|them|(the|a|an \w+) \w+))?) up\b(?! to)",
        "is taken up",
        "is used, up to 3",
    ),
    Rule(r"\bput together\b", "shards put together", "shards combined"),
    Rule(r"(?<!here )\b(is|are|was|were) none\b", "The graph is none", "The graph is missing; there is none"),
    Rule(
        r"(?<!here )\b(is|are|was|were) no (?!longer|more|less|fewer|larger|smaller|faster|slower|better|worse)\w+",
        "It is no log",
        "It is not a log; there is no log; it is no longer a log",
    ),
    Rule(rf"\b({COUNTED}) an? ({UNIT})\b", "30 clips a second; one a core", "30 clips per second"),
    Rule(r"\ba (half|third|quarter|fifth|sixth) more\b", "a third more work", "about one third more compute"),
    Rule(r"\b[Tt]old\b", "Told before each batch", "Called before each batch"),
    Rule(r"\bat work\b", "A unit at work", "Buffers windows into batches"),
    Rule(
        r"\b(is|are) held\b(?! out)", "only its input is held", "keeps only its input; the clips are held out"
    ),
    Rule(r"\b(go|goes|going) on\b(?! \w+s?\b[.,])", "goes on where it was", "continues where it stopped"),
    Rule(r"\banew\b", "drawn anew", "drawn again"),
    Rule(r"\b(hand(s|ed)?|giv(e|es|en)) (\w+ )?back\b", "hands back a report", "returns a report"),
    Rule(r"\b(is|are) not there\b", "files that are not there", "files that are missing"),
    Rule(r"\b[Ww]hat (comes|came|goes|went) (in|out|on)\b", "what came in", "the input"),
    Rule(r"\bas (it|they) (is|are|was|were|came)\b(?! now)", "any other as it is", "any other unchanged"),
)
NOT_VERBS = set(
    "A All An Any As At By Each Every For From How If In Its No None Not Of On One Only Several So Some That The "
    "Their Those To Two What When Where Whether Which Who Whose Why With".split()
)
VERBS_IN_S = {"Address", "Assess", "Compress", "Cross", "Discuss", "Dismiss", "Express", "Guess", "Miss", "Pass",
              "Press", "Process"}  # fmt: skip

LIST = Path(__file__).with_name("language_not_yet.txt")
NOT_YET = set(LIST.read_text(encoding="utf-8").split()) if LIST.exists() else set()


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


FILES = sorted((ROOT / "vjepa").rglob("*.py")) + [
    path
    for path in [
        ROOT / "README.md",
        ROOT / "data_manifests/README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    if name_of(path) not in HISTORY
]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def broken_rules(text: str) -> list[str]:
    """Return the phrases to avoid in a text; code between backticks does not count."""
    words = " ".join(re.sub(r"``[^`]*``|`[^`]*`", "`", text).split())
    found = ((rule, match) for rule in RULES if (match := re.search(rule.pattern, words)))
    return [f"'{match[0]}': instead of '{rule.bad}' write '{rule.good}'" for rule, match in found]


def comments(source: str) -> str:
    """Return the comments of a file; consecutive lines are one text."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return " ".join(token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT)


def strings(tree: ast.AST) -> list[str]:
    """Return all strings, docstrings included; the parts of an f-string are one text."""
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    inside = {id(part) for node in joined for part in node.values}
    texts = [
        "".join(str(part.value) if isinstance(part, ast.Constant) else "`" for part in node.values)
        for node in joined
    ]
    plain = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in inside)
    return texts + [node.value for node in plain if isinstance(node.value, str)]


def starts_with_a_noun(docstring: str) -> bool:
    """Return whether the first word of a function's docstring cannot be a verb in the imperative."""
    first, _, rest = docstring.strip().partition(" ")
    word = first.strip(".,:;")
    third_person_or_plural = word.endswith("s") and not word.endswith("ss") and word not in VERBS_IN_S
    return not word[:1].isupper() or word in NOT_VERBS or third_person_or_plural or rest.startswith("of ")


def long_sentences(docstring: str) -> list[str]:
    """Return the sentences of a docstring with too many words; every argument begins a sentence."""
    lines = [line.strip() for line in docstring.splitlines()]
    prose = "\n".join("" if line.startswith((">>>", "...")) else line for line in lines)
    parts = re.split(r"[.!?](?:\s+|$)|\n\s*\n|\n(?=\w+: |- )", prose)
    return [" ".join(part.split()) for part in parts if len(part.split()) > MAX_WORDS]


def is_property(node: ast.AST) -> bool:
    names = [ast.unparse(each) for each in getattr(node, "decorator_list", [])]
    return any(name.split(".")[-1] in ("property", "cached_property", "setter") for name in names)


def faults_of_docstring(node: ast.AST) -> list[str]:
    """Return the sentences that are too long, and the start of a function's docstring if it is not a verb."""
    docstring = ast.get_docstring(node) if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module)) else None
    if not docstring:
        return []
    found = [f"a sentence of more than {MAX_WORDS} words: {each}" for each in long_sentences(docstring)]
    if isinstance(node, FUNCTIONS) and not is_property(node) and starts_with_a_noun(docstring):
        start = docstring.splitlines()[0]
        found.append(f"line {node.lineno}: begin with a verb, as in 'Return': {start}")
    return found


def faults_of_code(source: str) -> list[str]:
    """Return everything in a Python file that style.md's section on language forbids."""
    tree = ast.parse(source)
    found = [fault for text in [comments(source), *strings(tree)] for fault in broken_rules(text)]
    for node in ast.walk(tree):
        found += faults_of_docstring(node)
        if isinstance(node, (ast.Name, ast.arg, *FUNCTIONS)):
            name = next(getattr(node, key) for key in ("id", "arg", "name") if hasattr(node, key))
            found += [f"line {node.lineno}: call it a message: {name}"] if name == "told" else []
    return list(dict.fromkeys(found))


def faults(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return faults_of_code(text)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    paragraphs = re.split(r"\n\s*\n|\n(?=\||- )", prose)
    return [fault for paragraph in paragraphs for fault in broken_rules(paragraph)]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_plain_technical_english(path):
    found = faults(path)
    if name_of(path) in NOT_YET:
        assert found, f"{name_of(path)} is clean: take it off {LIST.name}"
    else:
        assert not found, "\n".join([f"{name_of(path)}:", *found])


def test_the_list_names_real_files():
    assert sorted(NOT_YET - {name_of(path) for path in FILES}) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.bad)
def test_a_rule_sees_the_bad_example_and_not_the_good_one(rule):
    assert re.search(rule.pattern, rule.bad) and not re.search(rule.pattern, rule.good)


def test_docstrings_are_seen():
    noun = 'def f():\n    """The frames."""'
    verb = 'def f():\n    """Return the frames."""'
    long = f'"""{"word " * (MAX_WORDS + 1)}."""'
    assert [len(faults_of_code(code)) for code in (noun, verb, long, "told = 1", "# taken up")] == [
        1,
        0,
        1,
        1,
        1,
    ]
    assert not faults_of_code('@property\ndef f():\n    """The frames."""\nclass A:\n    """The class."""')


if __name__ == "__main__":
    asked = [Path(name).resolve() for name in sys.argv[1:] if name != "--list"] or FILES
    for name, found in ((name_of(path), faults(path)) for path in asked):
        lines = [name] * bool(found) if "--list" in sys.argv else [f"{name}: {each}" for each in found]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
