"""Host ports to hand out: lowest first, to one at a time."""

from __future__ import annotations

import pytest

from podkit import PortPool
from podkit.errors import InvalidInput, PortUnavailable
from tests.unit.support import at_once


def test_the_lowest_free_ports_come_first_and_the_end_is_included() -> None:
    pool = PortPool(8000, 8003, 2)
    assert pool.allocate() == [8000, 8001]
    assert pool.allocate() == [8002, 8003]


def test_the_count_is_of_ports() -> None:
    pool = PortPool(8000, 8009, 3)
    assert pool.available_count == 10
    pool.allocate()
    assert pool.available_count == 7


def test_an_empty_pool_says_so_and_takes_nothing() -> None:
    pool = PortPool(8000, 8002, 2)
    pool.allocate()
    with pytest.raises(PortUnavailable, match="2 ports are wanted and 1 of 8000-8002 are free"):
        pool.allocate()
    assert pool.available_count == 1


def test_released_ports_are_handed_out_again_lowest_first() -> None:
    pool = PortPool(8000, 8005, 2)
    first, _ = pool.allocate(), pool.allocate()
    pool.release(first)
    assert pool.allocate() == first


def test_ports_that_are_free_again_in_parts_are_the_lowest_ones() -> None:
    pool = PortPool(8000, 8005, 2)
    for _ in range(3):
        pool.allocate()
    pool.release([8004])
    pool.release([8001])
    assert pool.allocate() == [8001, 8004]


def test_releasing_twice_is_harmless() -> None:
    pool = PortPool(8000, 8003, 2)
    ports = pool.allocate()
    pool.release(ports)
    pool.release(ports)
    pool.release(iter(ports))
    assert pool.available_count == 4
    assert pool.allocate() == [8000, 8001]


@pytest.mark.parametrize("port", [7999, 8004, 0, -1, 70_000])
def test_a_foreign_port_is_refused_and_nothing_is_released(port: int) -> None:
    pool = PortPool(8000, 8003, 2)
    pool.allocate()
    with pytest.raises(InvalidInput, match=f"port {port} is not of this pool"):
        pool.release([8000, port])
    assert pool.available_count == 2


@pytest.mark.parametrize(("start", "end"), [(0, 10), (-5, 10), (8001, 8000), (8000, 65536)])
def test_an_impossible_range_is_refused(start: int, end: int) -> None:
    with pytest.raises(InvalidInput, match=f"start={start}, end={end}.*between 1 and 65535"):
        PortPool(start, end, 1)


@pytest.mark.parametrize("count", [0, -1, 11])
def test_an_impossible_count_is_refused(count: int) -> None:
    with pytest.raises(InvalidInput, match=f"ports_per_container={count}"):
        PortPool(8000, 8009, count)


def test_a_pool_of_one_port_and_of_all_ports() -> None:
    assert PortPool(65535, 65535, 1).allocate() == [65535]
    assert PortPool(1, 65535, 65535).available_count == 65535


def test_sixteen_threads_never_share_a_port() -> None:
    pool = PortPool(10_000, 13_199, 2)
    taken = at_once(16, lambda _: [port for _ in range(100) for port in pool.allocate()])
    assert len({port for ports in taken for port in ports}) == 3200
    assert pool.available_count == 0


def test_a_pool_that_is_used_by_many_ends_with_all_its_ports() -> None:
    pool = PortPool(10_000, 10_099, 3)

    def use(_: int) -> None:
        for _ in range(200):
            ports = pool.allocate()
            assert len(set(ports)) == 3
            pool.release(ports)

    at_once(8, use)
    assert pool.available_count == 100
