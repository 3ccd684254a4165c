"""The surface: the contract's names and signatures, module by module; and what importing podkit does not do."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import podkit

COMMAND = "working_dir=None, environment=None, timeout=None"
OPTIONS = "*, user=None, input=None, max_output_bytes=None, on_stdout=None, on_stderr=None"

# keyword-only parameters are compared where a line has some
SIGNATURES = {
    "podkit:get_docker_session": "user_id, session_id, config=None, workspace=None, workspace_host=None",
    "podkit:run_in_docker": "command, image=None, files=None, environment=None, working_dir=None, command_timeout=None",
    "podkit:reset_lifecycle_cache": "",
    "podkit:SessionProxy.execute_command": f"command, {COMMAND}, {OPTIONS}",
    "podkit:SessionProxy.popen": f"command, {COMMAND}, *, user=None, max_output_bytes=None",
    "podkit:SessionProxy.write_file": "path, content",
    "podkit:SessionProxy.read_file": "path",
    "podkit:SessionProxy.get_info": "",
    "podkit:SessionProxy.get_accessible_ports": "",
    "podkit:SessionProxy.close": "*, remove_workspace=False",
    "podkit:SessionProxy.__enter__": "",
    "podkit.core.files:SessionFiles.read_bytes": "path, *, max_bytes=268435456, user=None",
    "podkit.core.files:SessionFiles.read_text": "path, *, max_bytes=268435456, user=None",
    "podkit.core.files:SessionFiles.write_bytes": "path, content, *, mode=None, user=None",
    "podkit.core.files:SessionFiles.write_text": "path, content, *, mode=None, user=None",
    "podkit.core.files:SessionFiles.list": "path='.', *, max_entries=10000, user=None",
    "podkit.core.files:SessionFiles.stat": "path, *, follow_symlinks=True, user=None",
    "podkit.core.files:SessionFiles.exists": "path, *, follow_symlinks=True, user=None",
    "podkit.core.files:SessionFiles.mkdir": "path, *, mode=511, parents=False, exist_ok=False, user=None",
    "podkit.core.files:SessionFiles.remove": "path, *, recursive=False, missing_ok=False, user=None",
    "podkit.core.files:SessionFiles.rename": "source, target, *, user=None",
    "podkit.core.files:SessionFiles.upload": "local, path, *, timeout=None, progress=None, user=None",
    "podkit.core.files:SessionFiles.download": (
        "path, local, *, max_bytes=1073741824, max_files=10000, timeout=None, progress=None, user=None"
    ),
    "podkit.processes:ProcessManager": "container_manager, container_id, user_id, session_id",
    "podkit.processes:ProcessManager.start_process": (
        "command, name=None, environment=None, working_dir=None, *, user=None, stdin=False"
    ),
    "podkit.processes:ProcessManager.get_process": "id",
    "podkit.processes:ProcessManager.get_status": "id",
    "podkit.processes:ProcessManager.is_running": "id",
    "podkit.processes:ProcessManager.wait": "id, timeout=None",
    "podkit.processes:ProcessManager.list_processes": "",
    "podkit.processes:ProcessManager.get_logs": "id",
    "podkit.processes:ProcessManager.read_log": "id, stream='stdout', *, offset=0, max_bytes=1048576",
    "podkit.processes:ProcessManager.follow_log": "id, stream='stdout', *, offset=0",
    "podkit.processes:ProcessManager.write_stdin": "id, data, timeout=10.0",
    "podkit.processes:ProcessManager.close_stdin": "id",
    "podkit.processes:ProcessManager.send_signal": "id, number",
    "podkit.processes:ProcessManager.stop_process": "id, timeout=10.0, force=False",
    "podkit.processes:ProcessManager.remove_process": "id",
    "podkit:PortPool": "start, end, ports_per_container",
    "podkit:PortPool.allocate": "",
    "podkit:PortPool.release": "ports",
    "podkit.core.command:Command.poll": "",
    "podkit.core.command:Command.wait": "timeout=None",
    "podkit.core.command:Command.send_signal": "number",
    "podkit.core.command:Command.terminate": "",
    "podkit.core.command:Command.kill": "",
    "podkit.core.command:Command.__enter__": "",
    "podkit.core.models:ProcessResult.check": "",
    "podkit.core.models:Session.is_expired": "",
    "podkit.backends.docker:DockerBackend": "logger=None",
    "podkit.core.manager:BaseContainerManager": (
        "backend, container_prefix, workspace_base, workspace_base_host=None, event_handler=None"
    ),
    "podkit.core.manager:BaseContainerManager.get_mounts": "user_id, session_id, config",
    "podkit.core.manager:BaseContainerManager.write_file": "container_id, container_path, content, user_id, session_id",
    "podkit.core.manager:BaseContainerManager.create_container": "user_id, session_id, config",
    "podkit.core.manager:BaseContainerManager.start_container": "container_id, config",
    "podkit.core.manager:BaseContainerManager.execute_command": f"container_id, command, {COMMAND}, {OPTIONS}",
    "podkit.core.manager:BaseContainerManager.get_container_status": "container_id",
    "podkit.core.manager:BaseContainerManager.to_host_path": "container_path, user_id, session_id",
    "podkit.core.manager:BaseContainerManager.to_container_path": "host_path, user_id, session_id",
    "podkit.core.manager:BaseContainerManager.remove_container": "container_id",
    "podkit.core.manager:BaseContainerManager.cleanup_all": "",
    "podkit.core.manager:SimpleContainerManager": (
        "backend, container_prefix, workspace_base, workspace_base_host=None, event_handler=None, volume_name=None"
    ),
    "podkit.core.session:BaseSessionManager": (
        "container_manager, default_image=None, health_monitor=None, event_handler=None"
    ),
    "podkit.core.session:BaseSessionManager.create_session": "user_id, session_id, config=None",
    "podkit.core.session:BaseSessionManager.get_session": "user_id, session_id",
    "podkit.core.session:BaseSessionManager.execute_command": f"user_id, session_id, command, {COMMAND}, {OPTIONS}",
    "podkit.core.session:BaseSessionManager.write_file": "user_id, session_id, container_path, content",
    "podkit.core.session:BaseSessionManager.read_file": "user_id, session_id, container_path",
    "podkit.core.session:BaseSessionManager.update_session_activity": "user_id, session_id",
    "podkit.core.session:BaseSessionManager.close_session": "user_id, session_id",
    "podkit.core.session:BaseSessionManager.cleanup_expired_sessions": "",
    "podkit.core.session:BaseSessionManager.cleanup_all": "",
    "podkit.monitors.base:BaseThreadMonitor.start": "",
    "podkit.monitors.base:BaseThreadMonitor.stop": "",
    "podkit.monitors.health:ContainerHealthMonitor": "container_manager, check_interval=30, log_lines=50",
    "podkit.monitors.orphans:OrphanContainerCleaner": (
        "backend, container_prefix, check_interval, max_age_seconds, event_handler=None"
    ),
    "podkit.monitors.orphans:OrphanContainerCleaner._cleanup_orphans": "",
    "podkit.utils.paths:get_workspace_path": "workspace_base, user_id, session_id",
    "podkit.utils.paths:write_to_mounted_path": "container_path, content, to_host_path",
    "podkit.utils.network:get_parent_container_networks": "",
    "podkit.core.events:PodkitEventHandler": "",
    "podkit.core.events:PodkitEventHandler.on_container_creating": "user_id, session_id, config",
    "podkit.core.events:PodkitEventHandler.on_container_creation_failed": "user_id, session_id, config, error",
    "podkit.core.events:PodkitEventHandler.on_session_created": "session",
    "podkit.core.events:PodkitEventHandler.on_session_creation_failed": "user_id, session_id, error",
    "podkit.core.events:PodkitEventHandler.on_session_closing": "session",
    "podkit.core.events:PodkitEventHandler.on_session_closed": "session",
    "podkit.core.events:PodkitEventHandler.on_session_expired": "session",
    "podkit.core.events:PodkitEventHandler.on_orphan_container_removed": "container_id, container_name, age_seconds",
    **{
        f"{backend}.{name}": parameters
        for backend in (
            "podkit.backends.base:Backend",
            "podkit.backends.docker:DockerBackend",
            "podkit.testing:FakeBackend",
        )
        for name, parameters in {
            "connect": "",
            "create_workload": "spec",
            "start_workload": "id",
            "stop_workload": "id, timeout",
            "remove_workload": "id",
            "list_workloads": "filters=None",
            "get_accessible_ports": "id",
        }.items()
    },
}

# what else is named, and has no signature worth a line above
NAMES = [
    "podkit.core.models:ContainerConfig",
    "podkit.core.models:ContainerStatus",
    "podkit.core.models:Mount",
    "podkit.core.models:StartupVerificationConfig",
    "podkit.processes:LogPiece",
    "podkit.processes:Process",
    "podkit.processes:ProcessStatus",
    "podkit.core.events:PodkitEventHandler.on_container_created",
    "podkit.monitors.base:BaseThreadMonitor.tick",
    "podkit.utils.paths:container_to_host_path",
    "podkit.utils.paths:host_to_container_path",
    "podkit.errors:PodkitError",
    "podkit.testing:FakeBackend",
]

PROPERTIES = [
    "podkit:PortPool.available_count",
    "podkit.backends.docker:DockerBackend.client",
    "podkit.core.manager:BaseContainerManager.containers",
    "podkit.core.models:ProcessResult.ok",
    "podkit.monitors.base:BaseThreadMonitor.running",
]

NO_DEFAULT = "(none)"

MODELS: dict[str, dict[str, Any]] = {
    "ProcessResult": {
        "exit_code": NO_DEFAULT,
        "stdout": "",
        "stderr": "",
        "timed_out": False,
        "stdout_truncated": False,
        "stderr_truncated": False,
        "oom_killed": False,
        "container_restarted": False,
    },
    "Mount": {"target": NO_DEFAULT, "read_only": False, "type": "bind"},
    "Session": {"user_id": NO_DEFAULT, "session_id": NO_DEFAULT, "container_id": None, "data_dir": None},
}
SESSION_FIELDS = (
    "user_id session_id container_id container_name status config data_dir created_at last_active_at "
    "session_inactivity_timeout_seconds metadata"
)
VERIFICATION_FIELDS = "required_consecutive_checks check_interval_seconds max_wait_seconds"


def find(path: str) -> Any:
    """Find `module:Class.method`."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = inspect.getattr_static(found, part) if inspect.isclass(found) else getattr(found, part)
    return found


def parameters(path: str) -> list[inspect.Parameter]:
    """Give the parameters of a callable, without `self`."""
    found = find(path)
    if inspect.isclass(found):
        found = found.__init__
        listed = [] if found is object.__init__ else list(inspect.signature(found).parameters.values())[1:]
    else:
        listed = list(inspect.signature(found).parameters.values())
        listed = listed[1:] if "." in path.partition(":")[2] else listed
    return listed


def shown(listed: list[inspect.Parameter]) -> str:
    """Write parameters as in `SIGNATURES`."""
    words, before = [], None
    for one in listed:
        if one.kind is one.KEYWORD_ONLY and before is not one.KEYWORD_ONLY:
            words.append("*")
        words.append(one.name if one.default is one.empty else f"{one.name}={one.default!r}")
        before = one.kind
    return ", ".join(words)


@pytest.mark.parametrize("path", SIGNATURES)
def test_a_signature_is_the_contracts(path: str) -> None:
    wanted, listed = SIGNATURES[path], parameters(path)
    if "*" not in wanted:
        listed = [one for one in listed if one.kind is not one.KEYWORD_ONLY]
    assert shown(listed) == wanted


@pytest.mark.parametrize("path", NAMES)
def test_a_name_is_there(path: str) -> None:
    assert find(path) is not None


@pytest.mark.parametrize("path", PROPERTIES)
def test_what_is_read_without_parentheses_is_a_property(path: str) -> None:
    assert isinstance(find(path), property)


@pytest.mark.parametrize("name", MODELS)
def test_a_models_fields_have_the_contracts_defaults(name: str) -> None:
    fields = find(f"podkit.core.models:{name}").model_fields
    found = {
        field: NO_DEFAULT if fields[field].is_required() else fields[field].get_default() for field in MODELS[name]
    }
    assert found == MODELS[name]


@pytest.mark.parametrize(
    ("name", "fields"), [("Session", SESSION_FIELDS), ("StartupVerificationConfig", VERIFICATION_FIELDS)]
)
def test_a_model_has_the_contracts_fields(name: str, fields: str) -> None:
    assert set(fields.split()) <= set(find(f"podkit.core.models:{name}").model_fields)


def test_every_model_refuses_unknown_fields() -> None:
    models = [value for value in vars(importlib.import_module("podkit.core.models")).values() if is_model(value)]
    assert len(models) >= 5
    assert {model.model_config.get("extra") for model in models} == {"forbid"}


def is_model(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseModel) and value is not BaseModel


def test_the_top_level_exports_what_the_contract_names() -> None:
    assert podkit.__all__ == [
        "PodkitEventHandler",
        "PortPool",
        "SessionProxy",
        "get_docker_session",
        "reset_lifecycle_cache",
        "run_in_docker",
    ]


def test_all_is_sorted_and_every_name_in_it_exists() -> None:
    assert podkit.__all__ == sorted(podkit.__all__)
    assert all(hasattr(podkit, name) for name in podkit.__all__)


def test_a_container_manager_is_subclassed_by_two_methods() -> None:
    assert find("podkit.core.manager:BaseContainerManager").__abstractmethods__ == {"get_mounts", "write_file"}


@pytest.mark.parametrize("path", ["podkit.backends.docker:DockerBackend", "podkit.testing:FakeBackend"])
def test_a_backend_has_every_method_of_the_seam(path: str) -> None:
    seam, backend = find("podkit.backends.base:Backend"), find(path)
    methods = [name for name, _ in inspect.getmembers(seam, inspect.isfunction) if not name.startswith("_")]
    for name in methods:
        ours, theirs = (inspect.signature(getattr(owner, name)).parameters for owner in (seam, backend))
        assert shown(list(theirs.values())) == shown(list(ours.values()))


# --- importing -------------------------------------------------------------------------------------

IMPORT = """
import json, sys, threading
before = threading.active_count()
import {module}
foreign = [name for name in ("docker", "requests", "urllib3", "kubernetes") if name in sys.modules]
print(json.dumps([foreign, threading.active_count() - before]))
"""


def run_python(code: str, cwd: Path) -> str:
    """Run code in an empty directory, with an engine that nobody can reach."""
    environ = os.environ | {"DOCKER_HOST": "unix:///nowhere.sock"}
    # the working tree counts only where podkit was imported from it; else it is the installed one
    environ["PYTHONPATH"] = str(Path(podkit.__file__).parents[1])
    ran = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environ, capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    return ran.stdout


@pytest.mark.parametrize("module", ["podkit", "podkit.testing", "podkit.monitors.health", "podkit.backends.docker"])
def test_importing_loads_no_engines_sdk_starts_no_thread_and_says_nothing(module: str, tmp_path: Path) -> None:
    assert json.loads(run_python(IMPORT.format(module=module), tmp_path)) == [[], 0]
    assert list(tmp_path.iterdir()) == []


def test_pydantic_is_loaded_by_the_first_model_and_not_before(tmp_path: Path) -> None:
    code = """
import sys
from podkit import SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
SessionProxy(BaseSessionManager(SimpleContainerManager(DockerBackend(), "podkit", None)), "bob", "123")
before = "pydantic" in sys.modules
from podkit.core.models import ContainerConfig
print(before, "pydantic" in sys.modules)
"""
    assert run_python(code, tmp_path).split() == ["False", "True"]


def test_the_sdk_is_loaded_by_the_one_module_that_uses_it(tmp_path: Path) -> None:
    assert "docker" in json.loads(run_python(IMPORT.format(module="podkit.backends._docker_sdk"), tmp_path))[0]


# --- the house -------------------------------------------------------------------------------------


def every_module() -> list[str]:
    found = pkgutil.walk_packages(podkit.__path__, "podkit.")
    return ["podkit", *(module.name for module in found if module.name != "podkit.testing.suite")]


MODULES = every_module()


def source(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text())


@pytest.mark.parametrize("package", ["core", "backends", "monitors", "utils"])
def test_a_package_holds_a_docstring_and_nothing_else(package: str) -> None:
    tree = source(f"podkit.{package}")
    assert len(tree.body) == 1
    assert ast.get_docstring(tree)


def test_every_module_has_a_docstring() -> None:
    """Those of private names too, which ruff lets pass."""
    assert [module for module in MODULES if not ast.get_docstring(source(module))] == []


def test_the_types_are_shipped() -> None:
    assert resources.files("podkit").joinpath("py.typed").is_file()
