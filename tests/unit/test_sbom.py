"""The list of what a wheel consists of, as scripts/_sbom.py writes it, beside the wheel itself."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.run import IN_RUNNER

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROGRAMS = [f"podkit/agent/bin/agent-{machine}" for machine in ("x86_64", "aarch64")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with its list; in the runner those that scripts/test.sh has built."""
    directory = Path("/dist")
    if not IN_RUNNER:
        directory = tmp_path_factory.mktemp("dist")
        build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(ROOT)]
        subprocess.run([sys.executable, *build], check=True, stdout=subprocess.DEVNULL)
        [made] = directory.glob("*.whl")
        subprocess.run([sys.executable, "scripts/_sbom.py", str(made)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    [found] = directory.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sbom(wheel: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(str(wheel).removesuffix(".whl") + ".cdx.json").read_text())
    return found


def needed(name: str) -> Iterator[tuple[str, str]]:
    """A package and all that it needs here, by name and version."""
    found = distribution(name)
    if name != "podkit":
        yield canonicalize_name(found.metadata["Name"]), found.version
    for text in found.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from needed(requirement.name)


def sha256(data: bytes) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}]


def complaints(sbom: dict[str, Any], wheel: Path) -> set[str]:
    """What the list lacks, or says otherwise than the wheel."""
    listed = {(row["name"], row["version"]): row for row in sbom["components"]}
    podkit = sbom["metadata"]["component"]
    found = {f"{name} {version} is missing" for name, version in needed("podkit") if (name, version) not in listed}
    if podkit["hashes"] != sha256(wheel.read_bytes()):
        found.add("another wheel")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("podkit/agent/bin/"):
                row = listed.get((name, podkit["version"]), {})
                if row.get("hashes") != sha256(archive.read(name)):
                    found.add(f"{name} has another digest")
    return found


def test_the_list_names_each_dependency_and_each_program_with_its_digest(wheel: Path, sbom: dict[str, Any]) -> None:
    assert complaints(sbom, wheel) == set()
    assert (sbom["bomFormat"], sbom["metadata"]["component"]["name"]) == ("CycloneDX", "podkit")
    assert {name for name, _ in needed("podkit")} >= {"docker", "pydantic", "pydantic-core", "requests", "urllib3"}
    with zipfile.ZipFile(wheel) as archive:
        assert set(PROGRAMS) <= set(archive.namelist())


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_list_says_what_a_program_was_made_with(sbom: dict[str, Any], program: str) -> None:
    [compiler] = [text for text in PROJECT["build-system"]["requires"] if text.startswith("ziglang==")]
    [row] = [row for row in sbom["components"] if row["name"] == program]
    facts = {fact["name"]: fact["value"] for fact in row["properties"]}
    assert facts["podkit:agent:compiler"] == compiler.replace("==", " ")
    [below] = [row["dependsOn"] for row in sbom["dependencies"] if row["ref"] == program]
    assert sorted(below) == ["musl", f"pkg:pypi/{compiler.replace('==', '@')}"]


def test_what_a_package_needs_is_named_below_it(sbom: dict[str, Any]) -> None:
    below = {row["ref"]: row.get("dependsOn", []) for row in sbom["dependencies"]}
    direct = below[sbom["metadata"]["component"]["bom-ref"]]
    assert {ref.partition("@")[0] for ref in direct} == {"pkg:pypi/docker", "pkg:pypi/pydantic", *PROGRAMS}
    assert set(below) >= {ref for refs in below.values() for ref in refs}


def test_control_a_list_without_a_dependency_or_of_another_wheel_is_found(
    wheel: Path, sbom: dict[str, Any], tmp_path: Path
) -> None:
    rows = [row for row in sbom["components"] if row["name"] != "pydantic-core"]
    assert complaints({**sbom, "components": rows}, wheel) == {
        f"pydantic-core {distribution('pydantic-core').version} is missing"
    }
    other = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(other, "w") as changed:
        for name in archive.namelist():
            data = archive.read(name)
            changed.writestr(name, data[:-1] + b"?" if name == PROGRAMS[0] else data)
    assert complaints(sbom, other) == {"another wheel", f"{PROGRAMS[0]} has another digest"}
