"""Both ways in which the host opens a workspace's files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from podkit.utils import _host_files

HAS_OPENAT2 = _host_files._has_openat2()


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the test with openat2 and with the walk that stands in for it on older kernels.

    There is no seam for this and there should be none, so the cached question to the kernel is replaced.
    """
    if request.param == "openat2" and not HAS_OPENAT2:
        pytest.skip("this kernel, or its seccomp profile, has no openat2")
    monkeypatch.setattr(_host_files, "_has_openat2", lambda: request.param == "openat2")
    yield request.param
