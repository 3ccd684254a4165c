"""A file of the host that appears when it is complete."""

from __future__ import annotations

import os
from contextlib import suppress

_TEMPORARY = ".podkit-"
_UNNAMED = getattr(os, "O_TMPFILE", 0)


class NewFile:
    """A file without a name until `appear`. A kill before that leaves nothing.

    On a file system without unnamed files, it has a temporary name, and a kill leaves the file under that name.

    Args:
        directory: a descriptor of the file's directory; this object owns it.
        name: the final name in that directory; a file of this name is replaced.
        mode: the permissions, less those of the umask.

    Attributes:
        fd: the descriptor to write to.
    """

    def __init__(self, directory: int, name: str, mode: int) -> None:
        self._directory = directory
        self._name = name
        self._temporary = ""  # the present name; empty while it has none, and once it has the final one
        self.fd = -1
        try:
            if _UNNAMED and os.path.exists("/proc/self/fd"):
                # any error will do: file systems refuse unnamed files in many ways, and a named one may still work
                with suppress(OSError):
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
            self._link(temporary)  # a link never replaces a file; renaming does
            self._temporary = temporary
        os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._temporary = ""

    def _link(self, name: str) -> None:
        # a link to the descriptor's entry in /proc, followed: the unprivileged way to name an unnamed file
        os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=self._directory, follow_symlinks=True)

    def close(self) -> None:
        """Close the file. It is gone if it has not appeared. Twice is harmless."""
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
