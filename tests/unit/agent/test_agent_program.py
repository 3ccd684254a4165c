"""The agent's programs are a part of podkit: of its wheel, and of a working tree that was installed."""

import struct

import pytest

from podkit.agent import agent_program

MACHINES = [("x86_64", 62), ("aarch64", 183)]  # with the numbers that ELF has for them
INTERPRETER = 3


def program_headers(data: bytes) -> list[int]:
    """The types of what the kernel finds in a program."""
    (begin,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    return [struct.unpack_from("<L", data, begin + index * size)[0] for index in range(count)]


def test_podkit_brings_a_program_for_each_architecture_of_engines():
    shared = agent_program.shared_files()
    assert shared is not None
    assert sorted(shared.by_architecture) == ["amd64", "arm64"]


@pytest.mark.parametrize(("machine", "number"), MACHINES)
def test_a_program_is_one_for_its_machine(machine, number):
    data = agent_program.file_for(machine).read_bytes()
    assert data.startswith(b"\x7fELF")
    assert struct.unpack_from("<H", data, 18) == (number,)


@pytest.mark.parametrize("machine", [machine for machine, _ in MACHINES])
def test_a_program_needs_nothing_of_the_image(machine):
    assert INTERPRETER not in program_headers(agent_program.file_for(machine).read_bytes())
