"""What podkit's own file scripts do, for a fake that does not interpret them."""

from __future__ import annotations

from podkit.agent import files as real
from podkit.testing._programs import Invocation, Program, Reply, Steps, read_all


def _write(run: Invocation) -> Steps:
    path, root = run.argv[4:6]
    data = yield from read_all()
    if not path.startswith(root + "/"):
        return real.ESCAPE
    if run.files.is_directory(path):
        return real.NOT_A_FILE
    run.files[path] = data
    return 0


def _read(run: Invocation) -> Reply:
    path, root, limit = run.argv[4:7]
    if not path.startswith(root + "/"):
        return Reply(exit_code=real.ESCAPE)
    if run.files.is_directory(path):
        return Reply(exit_code=real.NOT_A_FILE)
    data = run.files.get(path)
    if data is None:
        return Reply(exit_code=real.MISSING)
    return Reply(data) if len(data) <= int(limit) else Reply(exit_code=real.TOO_LARGE)


FILE_SCRIPTS: dict[str, Program] = {real.WRITE_SCRIPT: _write, real.READ_SCRIPT: _read}
