"""The contract suite for backends. Needs pytest.

In a test module, give the fixtures `backend` and `image` and subclass the parts:

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

The image needs root as its user, `sh`, `cat`, `sleep`, `yes`, `printenv`, `whoami` and a user `nobody`. These can be
overridden in the classes: `missing_source`, a path that does not exist where the engine is; `new_prefix`, the beginning
of the names of what a test makes; the fixtures `workspace_base` (`None` for sessions without a workspace) and
`workspace_base_host`, where the engine sees that directory under another path.

What a backend cannot do is listed by name with the reason, in `KNOWN_DIFFERENCES["mine"]` or by overriding
`known_differences`; such a test must then fail. Any other failure is one.

Every test makes what it needs and removes it; they run in any order and in parallel.
"""

from __future__ import annotations

import pytest

# a failure then shows what was compared; only what is imported below is rewritten, hence the order
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
