"""A sandbox of `inspect_ai` over a podkit session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxEnvironment,
    SandboxEnvironmentLimits,
    SandboxUserUnsupportedError,
)
from inspect_ai.util._sandbox.self_check import *  # noqa: F403

from podkit import SessionProxy, get_docker_session
from podkit.core.models import ContainerConfig
from podkit.errors import FileTooLarge, InvalidInput


class PodkitSandbox(SandboxEnvironment):
    """Runs what is asked for in a thread, as podkit waits."""

    def __init__(self, session: SessionProxy) -> None:
        self._session = session

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        where = cwd if cwd is None or cwd.startswith("/") else f"/workspace/{cwd}"
        most = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        try:
            result = await asyncio.to_thread(
                self._session.execute_command,
                cmd,
                where,
                env,
                timeout,
                user=user,
                input=input,
                max_output_bytes=most,
            )
        except InvalidInput as exc:
            if user:
                raise SandboxUserUnsupportedError(str(exc)) from exc
            raise
        if result.timed_out:
            raise TimeoutError(result.stderr)
        if result.stdout_truncated or result.stderr_truncated:
            raise OutputLimitExceededError(
                limit_str=SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR, truncated_output=result.stdout
            )
        if result.exit_code == 126:
            raise PermissionError(result.stderr)
        text = result.stdout_bytes.decode(), result.stderr_bytes.decode(errors="replace")
        return ExecResult(result.ok, result.exit_code, *text)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        await asyncio.to_thread(self._session.write_file, file, contents)

    async def read_file(self, file: str, text: bool = True) -> Any:
        most = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        try:
            data = await asyncio.to_thread(self._session.files.read_bytes, file, max_bytes=most)
        except FileTooLarge as exc:
            raise OutputLimitExceededError(
                limit_str=SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, truncated_output=None
            ) from exc
        return data.decode() if text else data

    @classmethod
    async def sample_cleanup(cls, *arguments: Any) -> None:
        """Nothing: the fixture closes the session."""


ROOT_MAY = "root may read and write what is forbidden to others"
KNOWN = {
    "root": {
        "test_read_file_not_allowed": ROOT_MAY,
        "test_write_text_file_without_permissions": ROOT_MAY,
        "test_write_binary_file_without_permissions": ROOT_MAY,
    },
    "1000:1000": {"test_exec_as_user": "it makes a user first, as only root may"},
}


@pytest.fixture(scope="module", params=KNOWN)
def session(request: pytest.FixtureRequest) -> Iterator[SessionProxy]:
    config = ContainerConfig(user=request.param, memory_limit="2g", container_lifetime_seconds=600)
    with get_docker_session("frameworks", f"inspect-ai {request.param}", config) as opened:
        yield opened


@pytest.fixture
def sandbox_env(session: SessionProxy, request: pytest.FixtureRequest) -> PodkitSandbox:
    if reason := KNOWN[session.get_info().config.user or ""].get(request.node.originalname):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return PodkitSandbox(session)
