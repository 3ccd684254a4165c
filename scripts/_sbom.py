"""Writes down what a wheel consists of, in CycloneDX's terms, beside it: `podkit-1.2.3-....cdx.json`.

Usage: _sbom.py WHEEL. Names what podkit needs at run time, in the versions that are installed here, which are the
locked ones; the agent's programs with their digests in the wheel; and what those were made with.
"""

import hashlib
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import Distribution, distribution, version
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from _build_agent import FLAGS, MACHINES, is_built, wanted
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def main() -> None:
    wheel = Path(sys.argv[1])
    if not is_built():
        sys.exit("The agent's source has changed since it was built: ./scripts/agent.sh")
    # The same wheel has the same number, whoever describes it.
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, sha256(wheel.read_bytes())))
    bom.metadata.tools.components.add(package("cyclonedx-python-lib", version("cyclonedx-python-lib")))
    with zipfile.ZipFile(wheel) as archive:
        describe(bom, wheel, archive)
    target = wheel.with_name(wheel.name.removesuffix(".whl") + ".cdx.json")
    target.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n")
    print(target)


def describe(bom: Bom, wheel: Path, archive: zipfile.ZipFile) -> None:
    [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(archive.read(name).decode())
    podkit = package("podkit", metadata["Version"], metadata)
    podkit.hashes.add(digest(wheel.read_bytes()))
    bom.metadata.component = podkit

    known: dict[str, Component] = {}
    needed = [add(bom, known, text) for text in metadata.get_all("Requires-Dist", []) if applies(Requirement(text))]
    zig = package("ziglang", version("ziglang"), distribution("ziglang").metadata)
    zig.scope = ComponentScope.EXCLUDED  # it makes the programs; of what it brings, musl becomes a part of them
    musl = Component(name="musl", version=musl_version(), type=ComponentType.LIBRARY, bom_ref="musl")
    musl.description = f"the C library, as in ziglang {zig.version}; linked into the agent"
    musl.licenses.add(DisjunctiveLicense(id="MIT"))
    bom.components.update([zig, musl])
    bom.register_dependency(zig)
    bom.register_dependency(musl)
    for machine in MACHINES:
        program = agent(archive, machine, str(podkit.version), f"ziglang {zig.version}")
        bom.components.add(program)
        bom.register_dependency(program, [musl, zig])
        needed.append(program)
    bom.register_dependency(podkit, needed)


def add(bom: Bom, known: dict[str, Component], text: str) -> Component:
    """Adds an installed package and all that it needs, each once."""
    found: Distribution = distribution(Requirement(text).name)
    name = canonicalize_name(found.metadata["Name"])
    if name not in known:
        known[name] = component = package(name, found.version, found.metadata)
        bom.components.add(component)
        below = [add(bom, known, more) for more in found.requires or () if applies(Requirement(more))]
        bom.register_dependency(component, below)
    return known[name]


def applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def package(name: str, version: str, metadata: Message | None = None) -> Component:
    url = PackageURL("pypi", name=name, version=version)
    made = Component(name=name, version=version, type=ComponentType.LIBRARY, purl=url, bom_ref=str(url))
    if metadata and (licence := metadata.get("License-Expression") or metadata.get("License")):
        made.licenses.add(DisjunctiveLicense(name=licence.splitlines()[0]))
    return made


def agent(archive: zipfile.ZipFile, machine: str, version: str, compiler: str) -> Component:
    path = f"podkit/agent/bin/agent-{machine}"
    made = Component(name=path, version=version, type=ComponentType.APPLICATION, bom_ref=path)
    made.hashes.add(digest(archive.read(path)))
    facts = {"compiler": compiler, "target": f"{machine}-linux-musl", "flags": " ".join(FLAGS), "source": wanted()}
    made.properties.update(Property(name=f"podkit:agent:{name}", value=value) for name, value in facts.items())
    return made


def musl_version() -> str:
    header = distribution("ziglang").locate_file("ziglang/lib/libc/musl/src/internal/version.h")
    return Path(str(header)).read_text().split('"')[1]


def digest(data: bytes) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=sha256(data))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    main()
