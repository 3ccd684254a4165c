"""A file of the host that appears when it is complete."""

from __future__ import annotations

import os
from contextlib import suppress

_TEMPORARY = ".podkit-"
_UNNAMED = getattr(os, "O_TMPFILE", 0)


class NewFile:
    """A file without a name until `appear`. A kill before that leaves nothing.

    Where the file system has no such files, it has a name of podkit's meanwhile.

    Args:
        directory: a descriptor of the directory that it will be in; this object owns it.
        name: in that directory; a file that has it is replaced.
        mode: its permissions, as the umask lets them.

    Attributes:
        fd: to write to.
    """

    def __init__(self, directory: int, name: str, mode: int) -> None:
        self._directory = directory
        self._name = name
        self._temporary = ""  # the name that it has meanwhile
        self.fd = -1
        try:
            if _UNNAMED and os.path.exists("/proc/self/fd"):
                with suppress(OSError):  # whatever it is, it may not hold for a file with a name
                    self.fd = os.open(".", _UNNAMED | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=directory)
            if self.fd < 0:
                temporary = temporary_name()
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self.fd = os.open(temporary, flags, mode, dir_fd=directory)
                self._temporary = temporary
        except BaseException:
            os.close(directory)
            raise

    def appear(self) -> None:
        """Link the file under its name, replacing a file that has it."""
        if not self._temporary:
            with suppress(FileExistsError):
                self._link(self._name)
                return
            temporary = temporary_name()
            self._link(temporary)  # a link replaces nothing, a renaming does
            self._temporary = temporary
        os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._temporary = ""

    def _link(self, name: str) -> None:
        os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=self._directory, follow_symlinks=True)

    def close(self) -> None:
        """Close it; one that has not appeared is gone. Twice is harmless."""
        if self.fd < 0:
            return
        if self._temporary:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)
        os.close(self.fd)
        os.close(self._directory)
        self.fd = -1


def temporary_name() -> str:
    """Return a name that nobody else chooses."""
    return _TEMPORARY + os.urandom(8).hex()
