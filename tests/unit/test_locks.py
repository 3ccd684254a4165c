"""What the scripts install is locked: one version of each package, with digests, within the ranges that users have."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {name: (ROOT / f"requirements-{name}.lock").read_text() for name in ("dev", "test")}
ENTRY = re.compile(r"^(\S+)==(\S+)(?: ; .+?)? \\$((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?$)+)", re.MULTILINE)


def locked(text: str) -> dict[str, str]:
    """The version of each package; every line that is neither an entry nor a comment fails."""
    rest = [line for line in ENTRY.sub("", text).splitlines() if line and not line.lstrip().startswith("#")]
    assert rest == [], "lines without a version and digests"
    found = {canonicalize_name(name): version for name, version, _ in ENTRY.findall(text)}
    assert found, "nothing is locked"
    return found


def wanted(*extras: str) -> list[Requirement]:
    texts = list(PROJECT["project"]["dependencies"])
    for extra in extras:
        texts += PROJECT["project"]["optional-dependencies"][extra]
    return [found for text in texts if (found := Requirement(text)).name != "podkit"]


def outside(requirements: Iterable[Requirement], versions: dict[str, str]) -> list[str]:
    return [
        str(wanted)
        for wanted in requirements
        if not wanted.specifier.contains(versions.get(canonicalize_name(wanted.name), "0"), prereleases=True)
    ]


@pytest.mark.parametrize(("name", "extras"), [("dev", ["test", "dev"]), ("test", ["test"])])
def test_a_lock_has_a_version_and_digests_for_all_that_is_asked_for(name: str, extras: list[str]) -> None:
    assert outside(wanted(*extras), locked(LOCKS[name])) == []


def test_control_a_range_that_the_lock_does_not_meet_is_found() -> None:
    versions = locked(LOCKS["dev"])
    unmet = [Requirement("pydantic>=1000"), Requirement("nobody-has-this>=1")]
    assert outside([*wanted(), *unmet], versions) == [str(requirement) for requirement in unmet]


@pytest.mark.parametrize("change", [r" \\\n    --hash=sha256:[0-9a-f]{64}", "==[0-9.]+"])
def test_control_an_entry_without_its_digests_or_its_version_is_found(change: str) -> None:
    with pytest.raises(AssertionError, match="lines without a version and digests"):
        locked(re.sub(change, "", LOCKS["test"]))


def test_the_runner_gets_the_versions_that_developers_have() -> None:
    assert locked(LOCKS["test"]).items() <= locked(LOCKS["dev"]).items()


def test_the_agents_compiler_is_locked_as_the_build_has_it() -> None:
    build = {found.name: found for text in PROJECT["build-system"]["requires"] if (found := Requirement(text))}
    assert str(build["ziglang"].specifier) == f"=={locked(LOCKS['dev'])['ziglang']}"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_index_and_no_place_of_a_machine(name: str) -> None:
    place = re.compile(r"^.*(?:://|--(?:extra-)?index|--find-links|file:|/tmp|/home).*$", re.MULTILINE)
    assert place.findall(LOCKS[name]) == []
