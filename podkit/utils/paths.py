"""Container path <-> host path, without resolving links. Only `write_to_mounted_path` touches the file system."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePath, PurePosixPath

from podkit.errors import IsADirectory, PathEscape, PathNotMapped
from podkit.utils import _checks, _host_files
from podkit.utils._naming import workspace_component

DEFAULT_WORKING_DIR = "/workspace"
WORKSPACES = "workspaces"


def get_workspace_path(workspace_base: str | os.PathLike[str], user_id: str, session_id: str) -> Path:
    """Return a session's workspace: `{workspace_base}/workspaces/{user}/{session}`.

    Plain ids (lower-case letters, digits, `_`, `-`, `.`) appear unchanged. Any other id maps one to one to a readable
    part and a hash. Creates nothing.

    Raises:
        InvalidInput: an id is empty, too long, or not text.
    """
    _checks.check_id(user_id, "user_id")
    _checks.check_id(session_id, "session_id")
    return Path(workspace_base) / WORKSPACES / workspace_component(user_id) / workspace_component(session_id)


def resolve_container_path(path: str | PurePath, working_dir: str = DEFAULT_WORKING_DIR) -> PurePosixPath:
    """Return a path inside as an absolute one. A relative one starts at `working_dir` and stays below it.

    Bytes that are not UTF-8 are accepted in the form that `os.fsdecode` returns.

    Raises:
        PathEscape: a relative path leaves `working_dir` by `..`, or an absolute one contains `..`.
        InvalidInput: the path is empty, too long, starts with `~`, or contains NUL.
    """
    text = _checks.check_path_text(path, "path", any_bytes=True)
    absolute, parts = text.startswith("/"), []
    for part in PurePosixPath(text.lstrip("/")).parts:
        if part != "..":
            parts.append(part)
        elif absolute or not parts:  # it would leave; in an absolute path, a link before it may lead anywhere
            raise PathEscape(
                f"path={_checks.shown(text)} leaves its directory by '..': write the path without it", filename=text
            )
        else:
            parts.pop()
    return PurePosixPath("/" if absolute else working_dir, *parts)


def resolve_file_path(path: str | PurePath) -> PurePosixPath:
    """Return the absolute path of a file to write. See `resolve_container_path`.

    Raises:
        IsADirectory: it ends in `/`, `.` or `..`, as only a directory's path does.
    """
    # looked for in the text: pathlib drops such an end
    inside = resolve_container_path(path)
    last = os.fspath(path).rpartition("/")[2]
    if last in ("", ".", ".."):
        raise IsADirectory(
            f"cannot write {_checks.shown(os.fspath(path))}: it ends in '{last or '/'}', as only a directory's path "
            "does; pass the whole path of the file",
            filename=str(inside),
        )
    return inside


def container_to_host_path(
    container_path: str | PurePath, mount_target: str | PurePath, host_root: str | os.PathLike[str]
) -> Path:
    """Translate a path inside to the one on the host. `mount_target` becomes `host_root`.

    Compares whole components: `/workspace-evil` is not below `/workspace`.

    Raises:
        PathNotMapped: the path is not below `mount_target`.
        PathEscape: it leaves its directory by `..`.
    """
    path, target = resolve_container_path(container_path, str(mount_target)), PurePosixPath(mount_target)
    if not path.is_relative_to(target):
        raise PathNotMapped(
            f"container path '{path}' is not below {target}: pass a path below it, the rest is not on the host"
        )
    return Path(host_root) / path.relative_to(target)


def host_to_container_path(
    host_path: str | os.PathLike[str], mount_target: str | PurePath, host_root: str | os.PathLike[str]
) -> Path:
    """Translate a path on the host to the one inside. `host_root` becomes `mount_target`.

    Raises:
        PathNotMapped: the path is not below `host_root`.
        PathEscape: it contains `..`.
    """
    path, root = PurePosixPath(_checks.check_path_text(os.fspath(host_path), "host_path")), PurePosixPath(host_root)
    if ".." in path.parts:
        raise PathEscape(f"host_path={_checks.shown(str(path))} contains '..': write the path without it")
    if not path.is_relative_to(root):
        raise PathNotMapped(f"host path '{path}' is not below {root}: nothing inside the container shows it")
    return Path(mount_target) / path.relative_to(root)


def write_to_mounted_path(
    container_path: str | PurePath, content: str | bytes, to_host_path: Callable[[Path], Path]
) -> Path:
    """Write a file through its place on the host.

    Missing directories are made. A file that exists is replaced in one step. Links that the container puts there cannot
    lead the write out of the mount.

    Args:
        container_path: the file's path inside; a relative one starts at `/workspace`.
        content: text (written as UTF-8) or bytes.
        to_host_path: translates a path inside to the one on the host, such as
            `lambda path: manager.to_host_path(path, user_id, session_id)`.

    Returns:
        The absolute path inside.

    Raises:
        PathEscape: the path leaves the mount by `..` or by a symlink.
        PathNotMapped: no directory of the host is mounted there.
        IsADirectory: the path ends in `/`, or a directory is there.
        FileError: the host refused the write; a subclass says why, if one fits.
    """
    data = _checks.check_content(content, "content")
    inside = resolve_file_path(container_path)
    host = to_host_path(Path(inside))
    root = _mount_root(inside, host, to_host_path)
    _host_files.write_file(root, host.relative_to(root), data)
    return Path(inside)


def _mount_root(inside: PurePosixPath, host: Path, to_host_path: Callable[[Path], Path]) -> Path:
    """Return the top of the mount: the highest directory that still translates in step."""
    # the callable maps single paths only, so ask it for each parent
    root = host
    for parent in inside.parents:
        try:
            translated = to_host_path(Path(parent))
        except PathNotMapped:
            break
        if translated != root.parent:
            break  # another mount begins here
        root = translated
    return root
