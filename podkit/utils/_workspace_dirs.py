"""Session workspaces on the host: made, emptied, removed. Their files are hostile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from podkit.utils._atomic_file import temporary_name
from podkit.utils._host_files import file_errors, opened

_MAKING_TRIES = 64
_PARENTS = 2  # the user's directory and the one of all workspaces, see `get_workspace_path`
_CLEARED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_workspace(workspace: Path) -> None:
    """Make a session's directory, its user's, and that of all workspaces.

    The container may run as any user, so the workspace is open to every user. Its parents keep others out: only this
    process's user may enter them. Directories that exist are left as they are.
    """
    with file_errors(workspace, "make the workspace"):
        for tries_left in reversed(range(_MAKING_TRIES)):
            try:
                for parent in reversed(workspace.parents[:_PARENTS]):
                    with suppress(FileExistsError):
                        parent.mkdir(mode=0o700, parents=True)
                with suppress(FileExistsError):
                    workspace.mkdir()
                    workspace.chmod(0o777)  # the umask would cut a mode that mkdir gets
                return
            except FileNotFoundError:  # a race: the user's last session has just ended and removed the parents
                if not tries_left:
                    raise


def drop_empty_workspace(workspace: Path) -> None:
    """Remove a session's directory if it is empty, then its empty parents."""
    with suppress(OSError):  # not empty: the parents are not empty either
        for directory in (workspace, *workspace.parents[:_PARENTS]):
            with suppress(FileNotFoundError):  # removed by another process; its parents may still be there
                directory.rmdir()


def remove_tree(directory: Path) -> None:
    """Remove a directory tree, however deep, following no link. A missing one is no error.

    Directories further down move up to the top before they are emptied. So neither the stack, nor the number of open
    descriptors, nor any path grows with the depth. Memory does not grow with the number of names either. A container
    may choose both.

    Raises:
        FileError: something cannot be removed, such as another user's files.
    """
    with file_errors(directory, "remove"):
        try:
            fd = os.open(directory, _CLEARED)
        except FileNotFoundError:
            return
        with opened(fd) as top:
            while _clear(top):  # each round takes one level off
                pass
        with suppress(FileNotFoundError):
            os.rmdir(directory)


def _clear(top: int) -> bool:
    """Empty `top`, after moving its directories' own directories up. Return whether any moved."""
    moved = False
    for name in _directories(top):
        with suppress(FileNotFoundError):  # another process removes the tree at the same time
            with opened(os.open(name, _CLEARED, dir_fd=top)) as found:
                for below in _directories(found):
                    with suppress(FileNotFoundError):
                        # under a new name: `top` may have one of the same name
                        os.rename(below, temporary_name(), src_dir_fd=found, dst_dir_fd=top)
                        moved = True
            os.rmdir(name, dir_fd=top)
    return moved


def _directories(directory: int) -> Iterator[str]:
    """Remove the files in a directory, and yield the names of its directories."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.name
                continue
            with suppress(FileNotFoundError):  # the same race as in `_clear`
                os.unlink(entry.name, dir_fd=directory)
