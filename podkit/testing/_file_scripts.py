"""podkit's file scripts as Python functions. A fake has no shell that could run them."""

from __future__ import annotations

from podkit.agent import file_scripts as real
from podkit.testing._programs import Invocation, Program, Reply, Steps, read_all


def _write(run: Invocation) -> Steps:
    path = run.argv[4]
    data = yield from read_all()
    if run.files.is_directory(path):
        return real.IS_A_DIRECTORY
    run.files[path] = data
    return 0


def _read(run: Invocation) -> Reply:
    path, limit = run.argv[4:6]
    if run.files.is_directory(path):
        return Reply(exit_code=real.IS_A_DIRECTORY)
    data = run.files.get(path)
    if data is None:
        return Reply(exit_code=real.MISSING)
    return Reply(data) if len(data) <= int(limit) else Reply(exit_code=real.TOO_LARGE)


def _empty(run: Invocation) -> Reply:
    for path in [path for path in run.files if path.startswith(f"{run.working_dir}/")]:
        del run.files[path]
    return Reply()


FILE_SCRIPTS: dict[str, Program] = {
    real.WRITE_SCRIPT: _write,
    real.READ_SCRIPT: _read,
    real.EMPTY_SCRIPT: _empty,
    real.OPEN_SCRIPT: Reply(),  # a fake has no permissions
}
