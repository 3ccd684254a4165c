"""A sandbox of LangChain's `deepagents` over a podkit session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from deepagents.backends.protocol import ExecuteResponse, FileDownloadResponse, FileUploadResponse
from deepagents.backends.sandbox import BaseSandbox
from langchain_tests.integration_tests import SandboxIntegrationTests

from podkit import SessionProxy, get_docker_session
from podkit.core.models import ContainerConfig
from podkit.errors import FileDenied, FileMissing, InvalidInput, IsADirectory, NotADirectory, PodkitError


class PodkitSandbox(BaseSandbox):
    """Files as podkit has them, and its errors as the framework names them."""

    def __init__(self, session: SessionProxy) -> None:
        self._session = session

    @property
    def id(self) -> str:
        return self._session.session_id

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        result = self._session.execute_command(command, timeout=timeout)
        cut = result.stdout_truncated or result.stderr_truncated
        return ExecuteResponse(output=result.stdout + result.stderr, exit_code=result.exit_code, truncated=cut)

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        return [FileUploadResponse(path=path, error=self._upload(path, content)) for path, content in files]

    def _upload(self, path: str, content: bytes) -> str | None:
        if not path.startswith("/"):
            return "invalid_path"
        try:
            self._session.files.write_bytes(path, content)
        except PodkitError as exc:
            return _named(exc)
        return None

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        return [self._download(path) for path in paths]

    def _download(self, path: str) -> FileDownloadResponse:
        if not path.startswith("/"):
            return FileDownloadResponse(path=path, error="invalid_path")
        try:
            return FileDownloadResponse(path=path, content=self._session.files.read_bytes(path))
        except PodkitError as exc:
            return FileDownloadResponse(path=path, error=_named(exc))


def _named(error: PodkitError) -> str:
    kinds = {
        FileMissing: "file_not_found",
        NotADirectory: "file_not_found",
        FileDenied: "permission_denied",
        IsADirectory: "is_directory",
        InvalidInput: "invalid_path",
    }
    return next((name for kind, name in kinds.items() if isinstance(error, kind)), str(error))


class TestPodkit(SandboxIntegrationTests):
    @pytest.fixture(scope="class")
    def sandbox(self) -> Iterator[PodkitSandbox]:
        config = ContainerConfig(memory_limit="2g", container_lifetime_seconds=600)
        with get_docker_session("frameworks", "langchain", config) as session:
            yield PodkitSandbox(session)
