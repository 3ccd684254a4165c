"""Count how the prose of source trees reads, by default that of podkit: `python scripts/prose.py [FOLDER ...]`."""

from __future__ import annotations

import ast
import io
import re
import statistics
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, Documented) and (text := ast.get_docstring(node)):
            yield text


def comment_lines(source: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return sum(token.type == tokenize.COMMENT for token in tokens)


def code_lines(tree: ast.AST) -> int:
    """Count the lines that hold a statement, docstrings excepted."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            lines.add(node.lineno)
    return len(lines)


def measure(folder: Path) -> dict[str, float]:
    texts: list[str] = []
    comments = lines = 0
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text()
        tree = ast.parse(source)
        texts += docstrings(tree)
        comments += comment_lines(source)
        lines += code_lines(tree)
    summaries = [text.split("\n\n")[0].split(". ")[0].rstrip(".") for text in texts]
    lengths = sorted(len(summary.split()) for summary in summaries)
    return {
        "docstrings": len(texts),
        "words of a summary, median": statistics.median(lengths),
        "at the 90th percentile": lengths[len(lengths) * 9 // 10],
        "summaries that begin with 'Give'": sum(summary.startswith("Give") for summary in summaries),
        "'what' clauses in 100 docstrings": round(
            100 * sum(len(re.findall(r"\b[Ww]hat(?:ever)? ", text)) for text in texts) / len(texts), 1
        ),
        "comments in 100 lines of code": round(100 * comments / lines, 1),
    }


def main(folders: list[str]) -> None:
    found = {folder: measure(Path(folder)) for folder in folders or ["podkit"]}
    for name in next(iter(found.values())):
        print(f"{name:36}", *(f"{figures[name]:>10}" for figures in found.values()))


if __name__ == "__main__":
    main(sys.argv[1:])
