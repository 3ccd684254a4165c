"""The contract suite for backends. Needs pytest.

In a test module, define the fixtures `backend` and `image` and subclass the parts:

```python
import pytest
from podkit.testing import suite

@pytest.fixture(scope="module")
def backend():
    backend = MyBackend()
    backend.connect()
    return backend

@pytest.fixture(scope="module")
def image():
    return "python:3.11-alpine"

class TestWorkloads(suite.WorkloadContract): kind = "mine"
class TestStreams(suite.StreamContract): kind = "mine"
class TestSessions(suite.SessionContract): kind = "mine"
```

The image needs root as its user, `sh`, `cat`, `sleep`, `yes`, `printenv`, `whoami` and a user `nobody`. The classes may
override `missing_source` (a path that does not exist on the engine's host), `new_prefix` (the beginning of all names
that a test uses), and the fixtures `workspace_base` (`None` for sessions without a workspace) and `workspace_base_host`
(the path of that directory on the engine's host, if it differs).

A backend lists the tests that it cannot pass by name, with the reason, in `KNOWN_DIFFERENCES["mine"]` or by overriding
`known_differences`. The suite then expects such a test to fail, and reports any other failure.

Each test makes its own workloads and removes them. Tests run in any order and in parallel.
"""

from __future__ import annotations

import pytest

# with this, a failed assertion shows both sides; it acts on later imports only, hence the order
pytest.register_assert_rewrite(
    "podkit.testing._contract",
    "podkit.testing._session_contract",
    "podkit.testing._stream_contract",
    "podkit.testing._workload_contract",
)

from podkit.testing._contract import KNOWN_DIFFERENCES, Contract, Workloads, run, workload_spec  # noqa: E402
from podkit.testing._session_contract import SessionContract  # noqa: E402
from podkit.testing._stream_contract import StreamContract  # noqa: E402
from podkit.testing._workload_contract import WorkloadContract  # noqa: E402

__all__ = [
    "KNOWN_DIFFERENCES",
    "Contract",
    "SessionContract",
    "StreamContract",
    "WorkloadContract",
    "Workloads",
    "run",
    "workload_spec",
]
