"""FS-01, FS-16: paths of the corpus and what becomes of them: refused, or translated to a place below the mount."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from podkit.errors import InvalidInput, IsADirectory
from podkit.utils.paths import (
    container_to_host_path,
    get_workspace_path,
    host_to_container_path,
    resolve_container_path,
    resolve_file_path,
)
from tests.support import corpus

COUNT = int(os.environ.get("PODKIT_FUZZ_FRAMES", 10_000))
TARGET, HOST = "/workspace", "/srv/ws/bob/123"


def fuzzed(seed: int) -> Iterator[str]:
    dice = random.Random(seed)
    yield from corpus.paths()
    for _ in range(COUNT):
        yield corpus.mutated_path(dice)


def is_below(path: str, root: str) -> bool:
    """Whether a path is below another once the kernel has walked its dots; none of it is a link."""
    return os.path.normpath(path) == root or os.path.normpath(path).startswith(root + "/")


def test_a_path_inside_is_refused_or_translated_to_a_place_below_the_mount() -> None:
    refused = taken = escapes = 0
    for text in fuzzed(1):
        naive = HOST + "/" + text.removeprefix(TARGET)
        escapes += not is_below(naive, HOST)
        try:
            found = container_to_host_path(text, TARGET, HOST)
        except InvalidInput:
            refused += 1
            continue
        taken += 1
        assert is_below(str(found), HOST), text
        assert ".." not in found.parts, text
        # and back: the same place inside
        assert host_to_container_path(found, TARGET, HOST) == Path(resolve_container_path(text)), text
    assert min(refused, taken) > COUNT // 50
    assert escapes > COUNT // 50, "control: what is joined without a look leaves the mount"


def test_a_path_on_the_host_is_refused_or_translated_to_a_place_below_the_target() -> None:
    refused = taken = 0
    for text in fuzzed(2):
        for host in (text, f"{HOST}/{text}", HOST + text):
            try:
                found = host_to_container_path(host, TARGET, HOST)
            except InvalidInput:
                refused += 1
                continue
            taken += 1
            assert is_below(str(found), TARGET), host
    assert min(refused, taken) > COUNT // 50


def test_a_relative_path_stays_below_its_directory_and_an_absolute_one_means_what_it_says() -> None:
    for text in fuzzed(3):
        try:
            found = resolve_container_path(text, any_bytes=True)
        except InvalidInput:
            continue
        assert found.is_absolute(), text
        assert ".." not in found.parts, text
        expected = os.path.normpath(text if text.startswith("/") else f"{TARGET}/{text}")
        assert found == PurePosixPath("/" + expected.lstrip("/")), text
        assert text.startswith("/") or is_below(str(found), TARGET), text
        assert resolve_container_path(found, any_bytes=True) == found, text


def test_a_file_to_write_is_the_path_itself_or_refused_as_a_directory() -> None:
    for text in fuzzed(4):
        try:
            found = resolve_file_path(text)
        except (InvalidInput, IsADirectory):
            continue
        assert found == resolve_container_path(text), text
        assert found.name == text.rpartition("/")[2], text


def test_no_two_ids_share_a_workspace_and_none_leaves_its_place() -> None:
    """ID-04: the same odd texts as ids."""
    seen: dict[Path, str] = {}
    for text in fuzzed(5):
        try:
            found = get_workspace_path("/srv/ws", text, "session")
        except InvalidInput:
            continue
        assert found.parent.parent == Path("/srv/ws/workspaces"), text
        assert is_below(str(found), "/srv/ws/workspaces"), text
        assert seen.setdefault(found, text) == text
    assert len(seen) > COUNT // 10
