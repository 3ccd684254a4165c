"""The documentation, run: each example of the README and every other block of Python, as a program on a real engine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import podkit
import podkit.errors
from podkit.utils.paths import get_workspace_path
from tests.support.engine import Engine
from tests.support.leftovers import LABEL
from tests.support.run import run_id
from tests.support.waiting import eventually

# Examples share ids, host ports and a network: one after another.
pytestmark = pytest.mark.xdist_group("readme")

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]

EXAMPLES = {
    "1": "1db3a2915e2c2c8f00f12f109f1e2830f31402f6ff83bf75582281f6c7a48f68",
    "2": "d5699452e23ac67f56683bce67a9b5a43a393ee383b654235bf4b8e0a6241b1e",
    "3": "50ec1c89bc67c61fef256bb8dfe7a070bc0205055d490cead2103b1a24fa2b80",
    "4": "ea1ca01a0933297bfd5a2806abdd819c63b8a9d447d0a37ca789ab1f99bd5d30",
    "5": "bddab5762d06db7bb8a934edb9662723e97d4bd3c0b3617362a633b7a52a4d44",
    "5b": "29ed05064ff15820badf3ca30d516a1eca036672d9fd7b93846e6e02a9e0d793",
    "6": "c359c3aea9303c2ec9563e731f7b8b36580cd317fa9cfc54ed2af50990120b6f",
}
"""The code that was asked for, as sha256: the README shows it character for character."""

NETWORK = "execution-network"  # as Example 5 names it
PROCESS_DATA = """
import argparse, json, os, pathlib, time

parser = argparse.ArgumentParser()
parser.add_argument("--input")
parser.add_argument("--output")
asked = parser.parse_args()
pathlib.Path("/outputs/begun").touch()
while not os.path.exists("/outputs/go-on"):
    time.sleep(0.05)
lines = pathlib.Path(asked.input).read_text().splitlines()
seen = {"lines": lines, "environment": dict(os.environ), "creds": os.listdir("/creds")}
pathlib.Path(asked.output).write_text(json.dumps(seen))
"""


@dataclass(frozen=True)
class Block:
    """A block of Python in a page."""

    page: str
    line: int
    heading: str
    code: str

    @property
    def example(self) -> str | None:
        """Which of the examples it is: the first block under its heading."""
        found = re.match(r"Example (\w+):", self.heading)
        return found[1] if found else None


def blocks_of(page: Path) -> list[Block]:
    found: list[Block] = []
    lines: list[str] = []
    heading, begin = "", 0
    for number, line in enumerate(page.read_text().splitlines(keepends=True), 1):
        if begin and line == "```\n":
            found.append(Block(page.name, begin, heading, "".join(lines)))
            begin = 0
        elif begin:
            lines.append(line)
        elif line.startswith("```python"):
            begin, lines = number, []
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
    assert not begin, f"{page.name}:{begin}: a block without an end"
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
OTHERS = [block for block in BLOCKS if not block.example]


def example(number: str) -> str:
    (block,) = [block for block in BLOCKS if block.page == "README.md" and block.example == number]
    return block.code


def replaced(code: str, table: Mapping[str, object]) -> str:
    """What stands for the reader's own paths and images, replaced by what exists here."""
    for old, new in table.items():
        assert old in code, f"{old} does not occur any more"
        code = code.replace(old, str(new))
    return code


class Program:
    """A block of Python that runs as a program of its own, outside of the project's directory."""

    def __init__(self, directory: Path, prefix: str) -> None:
        self.directory = directory
        self.environment = os.environ | {"PODKIT_CONTAINER_PREFIX": prefix}

    def start(self, code: str) -> subprocess.Popen[str]:
        file = self.directory / "program.py"
        file.write_text(code)
        return subprocess.Popen(
            [sys.executable, "-W", "error", str(file)],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def running(self, code: str, until: Callable[[], object]) -> Iterator[subprocess.Popen[str]]:
        """Run it until something is seen of it; the rest is up to the block inside, and `finish`."""
        process = self.start(code)
        try:
            seen = eventually(lambda: process.poll() is not None or until(), seconds=60)
            if process.poll() is not None:
                self.finish(process)
            assert seen, "the program runs, and nothing is seen of it"
            yield process
        finally:
            process.kill()
            process.communicate()

    def finish(self, process: subprocess.Popen[str]) -> str:
        """Give what it printed, once it has ended well and without a complaint."""
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr) == (0, ""), f"exit code {process.returncode}\n{stdout}\n{stderr}"
        return stdout

    def run(self, code: str) -> str:
        process = self.start(code)
        try:
            return self.finish(process)
        finally:
            process.kill()


@pytest.fixture
def program(tmp_path: Path, engine: Engine) -> Program:
    return Program(tmp_path, engine.prefix)


@pytest.fixture
def host_directory(workspace: Path, workspace_host: Path) -> Callable[[str], tuple[Path, Path]]:
    """Make a directory; gives it as this process sees it and as the engine does."""

    def make(name: str) -> tuple[Path, Path]:
        (workspace / name).mkdir()
        return workspace / name, workspace_host / name

    return make


def containers(engine: Engine) -> list[str]:
    """The names of podkit's containers; the test's own helpers have a dot behind the prefix."""
    return engine.names(engine.prefix + "-")


def processes(engine: Engine) -> list[str]:
    """What runs in podkit's only container; nothing while that is not there or not started."""
    from docker.errors import APIError

    with suppress(APIError):
        for name in containers(engine):
            return engine.processes(name)
    return []


def only_container(engine: Engine) -> dict[str, Any]:
    (name,) = containers(engine)
    return engine.inspect(name)


def exec_in(engine: Engine, container: str, command: list[str]) -> int:
    """The exit code alone: on a busy machine engines lose output of an exec that ends at once."""
    code = engine.client.containers.get(container).exec_run(command).exit_code
    assert isinstance(code, int)
    return code


# --- the text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", EXAMPLES)
def test_an_example_is_the_code_that_was_asked_for(number: str) -> None:
    assert hashlib.sha256(example(number).encode()).hexdigest() == EXAMPLES[number]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_of_python_compiles(block: Block) -> None:
    compile(block.code, f"{block.page}:{block.line}", "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_other_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^):#]*)(?:#([^)]+))?\)", page.read_text())
    targets = [(page.parent / link if link else page, anchor) for link, anchor in links]
    pages = [(path.resolve(), anchor) for path, anchor in targets if path.suffix == ".md"]
    pages = [(path, anchor) for path, anchor in pages if path.parent.name == "docs" or path.name == "README.md"]
    assert [str(path) for path, _ in pages if not path.is_file()] == []
    assert [f"{path.name}#{anchor}" for path, anchor in pages if anchor and anchor not in anchors_of(path)] == []


def anchors_of(page: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_error_has_a_heading_in_troubleshooting() -> None:
    headings = re.findall(r"^#+ (.+)$", (PROJECT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    named = [name for heading in headings[1:] for name in heading.split(", ")]
    classes = {
        name for name, value in vars(podkit.errors).items() if getattr(value, "__module__", "") == "podkit.errors"
    }
    assert sorted(named) == sorted(name for name in classes if not name.startswith("_"))


def test_every_warning_is_explained_in_logging() -> None:
    page = (PROJECT / "docs/logging.md").read_text()
    warnings = [
        text
        for path in Path(podkit.__file__).parent.rglob("*.py")
        for text in re.findall(r'_logger\.warning\(\s*"([^"]+)"', path.read_text())
    ]
    assert warnings
    assert [text for text in warnings if f"`{re.sub('%[sr]', '...', text)}`" not in page] == []


def test_the_list_of_modules_is_complete() -> None:
    listed = set(re.findall(r"^\| `(\S+\.py)` \|", (PROJECT / "docs/architecture.md").read_text(), re.MULTILINE))
    root = Path(podkit.__file__).parent
    found = {str(path.relative_to(root)) for path in root.rglob("*.py")}
    hidden = {name for name in found if name.startswith("testing/_") or (name.endswith("/__init__.py"))}
    assert listed == found - hidden


def test_the_table_of_directory_names_is_true() -> None:
    page = (PROJECT / "docs/workspace-mounts.md").read_text()
    table = re.search(r"^\| id \| directory \|\n.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert table
    for id, directory in re.findall(r"\| `(.+)` \| `(.+)` \|", table[1]):
        assert get_workspace_path("/base", id, "session").parent.name == directory


def test_every_logger_stands_in_the_page_on_logging() -> None:
    page = (PROJECT / "docs/logging.md").read_text()
    root = Path(podkit.__file__).parent
    names = set()
    for path in root.rglob("*.py"):
        module = ".".join(("podkit", *path.relative_to(root).with_suffix("").parts))
        for argument in re.findall(r"_logger = .*getLogger\((.+?)\)", path.read_text()):
            name = module if argument == "__name__" else argument.strip('"')
            names.add("podkit.agent.*" if name.startswith("podkit.agent.") else name)
    assert {name for name in names if f"`{name}`" not in page} == set()
    assert "podkit.core.manager" in names


def test_the_picture_of_a_sessions_life_shows_what_the_code_does() -> None:
    """`python scripts/_session_life.py > docs/session-life.svg` draws it again."""
    script = PROJECT / "scripts/_session_life.py"
    drawn = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=60).stdout
    assert (PROJECT / "docs/session-life.svg").read_text() == drawn


# --- the examples ------------------------------------------------------------------------------------


@pytest.mark.integration
def test_example_1_makes_a_session_that_other_processes_find_running_and_exited(
    program: Program, engine: Engine
) -> None:
    assert program.run(example("1")) == "/workspace\n\n"
    made = only_container(engine)
    assert made["State"]["Status"] == "running"
    assert made["Config"]["Cmd"] == ["sleep", "60"]

    assert program.run(example("1")) == "/workspace\n\n"
    assert only_container(engine)["Id"] == made["Id"]
    assert only_container(engine)["State"]["StartedAt"] == made["State"]["StartedAt"]

    engine.stop(made["Id"])
    assert engine.state(made["Id"]) == "exited"
    assert program.run(example("1")) == "/workspace\n\n"
    assert only_container(engine)["Id"] == made["Id"]
    assert only_container(engine)["State"]["Status"] == "running"


@pytest.mark.integration
def test_example_2_prints_the_directory_and_leaves_no_container(program: Program, engine: Engine) -> None:
    assert program.run(example("2")) == "/workspace\n\n"
    assert containers(engine) == []


@pytest.mark.integration
def test_example_3_serves_http_on_the_port_of_the_host(program: Program, engine: Engine, nginx_image: str) -> None:
    code = replaced(example("3"), {'"nginx:latest"': f'"{nginx_image}"'})

    with program.running(code, until=lambda: "nginx" in " ".join(processes(engine))) as process:
        assert "nginx" in engine.fetch("http://127.0.0.1:80")
        container = only_container(engine)
        assert container["NetworkSettings"]["Ports"] == {
            f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}] for port in (80, 443)
        }
        assert exec_in(engine, container["Id"], ["nginx", "-s", "quit"]) == 0
        program.finish(process)
    assert containers(engine) == []


@pytest.mark.integration
def test_example_4_reads_what_is_mounted_and_writes_only_where_it_may(
    program: Program, engine: Engine, default_image: str, host_directory: Callable[[str], tuple[Path, Path]]
) -> None:
    datasets, datasets_host = host_directory("datasets")
    _, configs_host = host_directory("configs")
    outputs, outputs_host = host_directory("outputs")
    os.mkfifo(datasets / "dataset.csv")  # `cat` waits at it, and the test looks around meanwhile
    code = replaced(
        example("4"),
        {
            '"python:3.11-alpine"': f'"{default_image}"',
            '"/shared/datasets"': f'"{datasets_host}"',
            '"/shared/configs"': f'"{configs_host}"',
            '"/app/outputs"': f'"{outputs_host}"',
        },
    )

    with program.running(code, until=lambda: "cat /data/dataset.csv" in processes(engine)) as process:
        (container,) = containers(engine)
        for target in ("/data", "/etc/configs"):
            refused = f"! echo spoiled > {target}/file && grep -q ' {target} [^ ]* ro,' /proc/mounts"
            assert exec_in(engine, container, ["sh", "-c", refused]) == 0
        (datasets / "dataset.csv").write_text("a,b\n1,2\n")
        assert program.finish(process) == "a,b\n1,2\n\n"
    assert (outputs / "results.txt").read_text() == "processing complete\n"
    assert containers(engine) == []


@pytest.fixture
def execution_network(engine: Engine) -> Iterator[str]:
    """The network that Example 5 names; one of the user's own is used and left alone."""
    from docker.errors import APIError

    try:
        made = engine.client.networks.create(NETWORK, check_duplicate=True, labels={LABEL: run_id()})
    except APIError as exc:
        assert exc.status_code == 409
        yield NETWORK
        return
    yield NETWORK
    engine.clean_up()
    made.remove()


@pytest.mark.integration
def test_example_5_runs_its_script_under_the_limits_and_in_the_network_that_it_names(
    program: Program,
    engine: Engine,
    default_image: str,
    host_directory: Callable[[str], tuple[Path, Path]],
    execution_network: str,
) -> None:
    datasets, datasets_host = host_directory("datasets")
    credentials, credentials_host = host_directory("credentials")
    outputs, outputs_host = host_directory("outputs")
    (datasets / "process_data.py").write_text(PROCESS_DATA)
    (datasets / "dataset.csv").write_text("a,b\n1,2\n")
    (credentials / "token").write_text("t")
    code = replaced(
        example("5"),
        {
            '"python:3.11-alpine"': f'"{default_image}"',
            '"/shared/datasets"': f'"{datasets_host}"',
            '"/shared/credentials"': f'"{credentials_host}"',
            '"/app/outputs"': f'"{outputs_host}"',
        },
    )
    with program.running(code, until=(outputs / "begun").exists) as process:
        container = only_container(engine)
        (outputs / "go-on").touch()
        program.finish(process)

    limits = container["HostConfig"]
    assert limits["CpuQuota"] / limits["CpuPeriod"] == 2.0
    assert limits["Memory"] == limits["MemorySwap"] == 1 << 30
    assert list(container["NetworkSettings"]["Networks"]) == [execution_network]
    assert {mount["Destination"]: mount["RW"] for mount in container["Mounts"]} == {
        "/data": False,
        "/creds": False,
        "/outputs": True,
        "/run/podkit": False,  # the agent
    }
    seen = json.loads((outputs / "results.json").read_text())
    assert (seen["lines"], seen["creds"]) == (["a,b", "1,2"], ["token"])
    assert seen["environment"].items() >= {
        ("ENV", "production"),
        ("LOG_LEVEL", "INFO"),
        ("DATABASE_URL", "postgresql://db.execution-network:5432/tasks"),
    }
    assert containers(engine) == []


@pytest.mark.integration
def test_example_5b_leaves_its_file_in_the_workspace_on_the_host(
    program: Program, engine: Engine, workspace: Path, workspace_host: Path
) -> None:
    table = {
        'workspace="/app/data"': f'workspace="{workspace}"',
        'workspace_host="/app/data"': f'workspace_host="{workspace_host}"',
    }
    program.run(replaced(example("5b"), table))
    assert (workspace / "workspaces/bob/task-456/output.txt").read_text() == "results"
    assert containers(engine) == []


@pytest.fixture
def containers_of_example_6(engine: Engine, workspace_host: Path) -> Iterator[Callable[[], list[str]]]:
    """Finds them by their workspace: the example itself names their prefix."""

    def find() -> list[str]:
        rows = engine.client.api.containers(all=True, filters={"label": ["podkit.prefix=podkit"]})
        return [row["Id"] for row in rows if row["Labels"]["podkit.workspace"].startswith(f"{workspace_host}/")]

    yield find
    for id in find():
        engine.remove(id)


@pytest.mark.integration
def test_example_6_puts_the_layers_together_and_closes_what_it_opened(
    program: Program, default_image: str, workspace: Path, containers_of_example_6: Callable[[], list[str]]
) -> None:
    table = {'"/tmp/podkit_workspace"': f'"{workspace}"', '"python:3.11-alpine"': f'"{default_image}"'}
    assert program.run(replaced(example("6"), table)) == "Hello\n\n"
    assert (workspace / "workspaces/user/session/file.txt").read_text() == "Hello from podkit"
    assert (workspace / "workspaces/user2/session2").is_dir()
    assert containers_of_example_6() == []


# --- all other blocks --------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize("block", OTHERS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_runs_prints_what_it_says_and_leaves_no_container(
    block: Block, program: Program, engine: Engine, default_image: str, workspace: Path, workspace_host: Path
) -> None:
    (workspace / "datasets").mkdir()
    table = {
        "/srv/podkit": workspace,
        "/shared/datasets": workspace_host / "datasets",
        '(backend, "podkit",': f'(backend, "{engine.prefix}",',
        '"podkit-files"': f'"{engine.volume()}"',
        '"podkit-cache"': f'"{engine.volume()}"',
        "python:3.11-alpine": default_image,
    }
    code = replaced(block.code, {old: new for old, new in table.items() if old in block.code})
    stdout = block_output(program, code)
    for expected in re.findall(r"^ *print\(.*\)  # (.+)$", code, re.MULTILINE):
        assert expected in stdout
    assert containers(engine) == []


def block_output(program: Program, code: str) -> str:
    """What a block prints; the log may warn of a timeout that the block asks for."""
    process = program.start(code)
    try:
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, stderr
    return stdout
