"""Collects the pages of the site in a directory, laid out as in the project, so that links between them hold.

Usage: _docs_site.py TARGET. The pages of the reference, one for each module, are those that docs/mkdocs.yml names.
"""

import re
import shutil
import sys
from pathlib import Path

INHERITING = ("podkit.core.manager", "podkit.monitors.health", "podkit.monitors.orphans")
"""Modules whose classes have public methods of a base that is not public itself."""


def main(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree("docs", target / "docs", ignore=shutil.ignore_patterns("mkdocs.yml"))
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(name, target)
    for page, module in re.findall(r"- (docs/reference/(\S+)\.md)$", Path("docs/mkdocs.yml").read_text(), re.MULTILINE):
        (target / page).parent.mkdir(exist_ok=True)
        options = "    options:\n      inherited_members: true\n" if module in INHERITING else ""
        (target / page).write_text(f"# {module}\n\n::: {module}\n{options}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
