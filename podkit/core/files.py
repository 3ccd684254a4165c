"""Files of a session, in the terms of `pathlib`."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Protocol


class _Sessions(Protocol):
    def read_bytes(self, user_id: str, session_id: str, container_path: str | PurePath) -> bytes: ...

    def read_file(self, user_id: str, session_id: str, container_path: str | PurePath) -> str: ...

    def write_file(
        self, user_id: str, session_id: str, container_path: str | PurePath, content: str | bytes
    ) -> Path: ...


class SessionFiles:
    """The files of one session; paths are those inside, and relative ones lie under `/workspace`.

    Safe to use from many threads. Errors are those of `BaseSessionManager.read_file` and `write_file`.
    """

    def __init__(self, sessions: _Sessions, user_id: str, session_id: str) -> None:
        self._sessions = sessions
        self._key = user_id, session_id

    def read_bytes(self, path: str | PurePath) -> bytes:
        """Read a regular file of at most 256 MiB."""
        return self._sessions.read_bytes(*self._key, path)

    def read_text(self, path: str | PurePath) -> str:
        """Read a UTF-8 file of at most 256 MiB."""
        return self._sessions.read_file(*self._key, path)

    def write_bytes(self, path: str | PurePath, content: bytes) -> Path:
        """Write a file in one step and give its absolute path inside."""
        return self._sessions.write_file(*self._key, path, content)

    def write_text(self, path: str | PurePath, content: str) -> Path:
        """Write a file as UTF-8, in one step, and give its absolute path inside."""
        return self._sessions.write_file(*self._key, path, content)
