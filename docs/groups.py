"""Writes the tables of docs/groups.md from conf/: `python docs/groups.py`, in the repository's root."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from parsimony.config import CONF, leaves
from parsimony.published.pages import filled
from parsimony.runs import replace_file

PAGE = Path(__file__).with_name("groups.md")
HEADING = re.compile(r"^## `(\w+)`$", re.MULTILINE)  # of a group's part of the page
LINE = re.compile(r"( *)([\w.]+):(?: +([^#\n]*))?(?:# (.*))?")  # key, value and comment
HIDDEN = re.compile(r"|defaults|hydra|source\..*|(.*\.)?(_target_|_partial_|dirpath|save_dir|name|version)")
LONGEST = 40  # characters of a value


def page() -> str:
    """docs/groups.md as it should read."""
    text = PAGE.read_text()
    tables = [group(name) for name in HEADING.findall(text)]
    return filled(text, *tables, keys(CONF / "config.yaml"))


def group(name: str) -> str:
    """A line an option; below them the keys that have a comment in their files."""
    folder = CONF / name
    options = {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.yaml"))}
    lines = ["| option | | keys |", "|---|---|---|"]
    lines += [f"| `{option}` | {_head(path)} | {_values(path)} |" for option, path in options.items()]
    commented: dict[str, str] = {}
    for option, path in sorted(options.items(), key=lambda item: "defaults" in _content(item[1])):  # what others change
        for key, value, comment in _keys(path):
            if value and comment and not _whole(path):
                commented.setdefault(key, f"| `{name}.{key}` | {_code(value)} in `{option}` | {comment} |")
    if commented:
        lines += ["", "| key | value | |", "|---|---|---|", *commented.values()]
    return "\n".join(lines)


def keys(path: Path) -> str:
    """A line a key of a file that belongs to no group."""
    rows = [f"| `{key}` | {_code(value)} | {comment} |" for key, value, comment in _keys(path) if value or comment]
    return "\n".join(["| key | default | |", "|---|---|---|", *rows])


def _head(path: Path) -> str:
    """The comment that begins the file. A command in it is set as one."""
    comments = []
    for line in path.read_text().splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("# "):
            break
        parts = re.split("  +", line.removeprefix("# "))
        comments.append(": ".join(f"`{part}`" if part.startswith("python ") else part for part in parts))
    return " ".join(comments).replace("|", "\\|")


def _values(path: Path) -> str:
    """The file's keys and values as one would type them."""
    shown = [
        f"`{key}={_typed(value)}`"
        for key, value in leaves(_content(path))
        if not HIDDEN.fullmatch(key) and len(_typed(value)) <= LONGEST
    ]
    return " ".join(shown)


def _keys(path: Path) -> Iterator[tuple[str, str, str]]:
    """(dotted key, value, comment) of every line that is no item of a list."""
    parents: list[tuple[int, str]] = []
    for match in filter(None, map(LINE.fullmatch, path.read_text().splitlines())):
        indent, name, value, comment = len(match[1]), match[2], (match[3] or "").strip(), match[4] or ""
        parents = [parent for parent in parents if parent[0] < indent] + [(indent, name)]
        key = ".".join(part for _, part in parents)
        if not HIDDEN.fullmatch(key.partition(".")[0]) and not HIDDEN.fullmatch(key):
            yield key, value, comment.replace("|", "\\|")


def _whole(path: Path) -> bool:
    """Whether the file is about the whole config rather than its group."""
    return "# @package _global_" in path.read_text()


def _content(path: Path) -> Any:
    return {key: value for key, value in (yaml.safe_load(path.read_text()) or {}).items() if key != "hydra"}


def _typed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace(", ", ",") if isinstance(value, list) else str(value)


def _code(value: str) -> str:
    return f"`{value}`".replace("|", "\\|") if value else ""


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    replace_file(PAGE, page())
