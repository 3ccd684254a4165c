"""B1: two different ids never share a container, name, label or workspace.

ID-01 and ID-03 and the pairs are in `tests/integration/test_identity.py` and `tests/unit/core/test_identity.py`.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from podkit.core._identity import Identity
from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager
from podkit.errors import InvalidInput
from podkit.utils.paths import get_workspace_path
from tests.integration.conftest import OpenSession
from tests.support.engine import Engine
from tests.support.processes import ask_python

REFUSED = {"empty": "", "NUL": "a\0b", "1 MB": "x" * 1_000_000, "half of a pair": "\ud800"}
ODD = [
    ".",
    "..",
    "-rf",
    "a\nb",
    "a\n",
    "a",
    "A",
    *(unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in ("é", "É")),
    "\u202ea",
    "a\u202e",
    "\u212a",  # the sign for Kelvin, which is a k in lower case
    "k",
    "ß",
    "ss",
    "x" * 1024,
    "x" * 1023 + "y",
]


@pytest.mark.parametrize("id", REFUSED.values(), ids=list(REFUSED))
def test_an_id_that_cannot_be_mapped_is_refused(id: str) -> None:
    """ID-04."""
    for user_id, session_id in ((id, "s"), ("u", id)):
        with pytest.raises(InvalidInput):
            Identity.of("p", user_id, session_id)
        with pytest.raises(InvalidInput):
            get_workspace_path("/srv", user_id, session_id)


def test_odd_ids_are_mapped_one_to_one() -> None:
    """ID-04: as user and as session, also on a file system that folds case."""
    pairs = [(one, other) for one in ODD for other in ODD]
    identities = [Identity.of("p", *pair) for pair in pairs]
    assert len({identity.name for identity in identities}) == len(pairs)
    assert [Identity.read(identity.labels) for identity in identities] == identities
    paths = {get_workspace_path("/srv", *pair) for pair in pairs}
    assert len({unicodedata.normalize("NFC", str(path)).casefold() for path in paths}) == len(pairs)
    assert all(len(path.parts) == 5 and ".." not in path.parts for path in paths)


OTHER = """
import json, sys
from pathlib import Path
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager
from podkit.monitors.health import ContainerHealthMonitor
from podkit.monitors.orphans import OrphanContainerCleaner

prefix, workspace, host = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
backend = DockerBackend()
backend.connect()
manager = SimpleContainerManager(backend, prefix, workspace, host)
sessions = BaseSessionManager(manager)
before = sessions.get_session("bob", "123")
sessions.close_session("bob", "123")
sessions.create_session("bob", "123", ContainerConfig(container_lifetime_seconds=1800))
sessions.write_file("bob", "123", "/tmp/whose", "the other's")
seen = sessions.execute_command("bob", "123", "cat /tmp/whose; test ! -e /tmp/mine").stdout
listed = [row["name"] for row in backend.list_workloads({"label": ["podkit.prefix=" + prefix]})]
sessions.get_session("bob", "123").last_active_at -= __import__("datetime").timedelta(days=1)
expired = [session.container_name for session in sessions.cleanup_expired_sessions()]
OrphanContainerCleaner(backend, prefix, check_interval=60, max_age_seconds=0)._cleanup_orphans()
ContainerHealthMonitor(manager, check_interval=60).tick()
sessions.cleanup_all()
manager.cleanup_all()
print(json.dumps([before is not None, seen, [*listed, *expired]]))
"""


@pytest.mark.integration
@pytest.mark.parametrize("other", ["{}-x", "{}x", "x-{}"])
def test_two_prefixes_in_two_processes_neither_list_nor_reap_nor_close_the_others_session(
    open_session: OpenSession,
    sessions: BaseSessionManager,
    engine: Engine,
    workspace: Path,
    workspace_host: Path,
    other: str,
) -> None:
    """ID-05: equal ids and, at worst, an equal base of workspaces; one of ours runs, and one has stopped."""
    config = ContainerConfig(container_lifetime_seconds=1800)
    session = open_session(config)
    session.execute_command("touch /tmp/mine").check()
    stopped = open_session(config, session_id="stopped").get_info().container_name
    engine.stop(stopped)
    mine = session.get_info()
    elsewhere = workspace / "theirs"
    elsewhere.mkdir()

    before, seen, touched = ask_python(
        OTHER, other.format(engine.prefix), str(elsewhere), str(workspace_host / "theirs")
    )

    assert (before, seen) == (False, "the other's")
    assert touched
    assert not {mine.container_name, stopped} & set(touched)
    assert engine.names() == sorted([mine.container_name, stopped])
    assert session.execute_command("ls /tmp/mine").stdout == "/tmp/mine\n"
    assert {entry.container_id for entry in sessions.list_sessions()} >= {mine.container_id}
