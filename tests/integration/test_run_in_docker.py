"""One command in a container of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from podkit import run_in_docker
from podkit.errors import InvalidInput, PathEscape
from tests.support.engine import Engine
from tests.support.processes import start_python
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def nothing_stays(facade: Engine) -> object:
    """Whatever a test does, no container of it is left when the call has returned."""
    yield facade
    assert facade.names() == []


def test_a_command_runs_and_its_container_goes(facade: Engine) -> None:
    result = run_in_docker("echo out; echo err >&2; pwd; exit 3")

    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n/workspace\n", "err\n")


def test_a_list_is_run_as_it_is() -> None:
    assert run_in_docker(["echo", "$HOME *"]).stdout == "$HOME *\n"


def test_the_image_is_the_one_that_was_asked_for(busybox_image: str) -> None:
    assert not run_in_docker("python3 --version", image=busybox_image).ok


def test_files_are_there_before_the_command_runs() -> None:
    files = {
        "main.py": "import helper; print(helper.answer(open('/etc/config.txt').read()))",
        "helper.py": "def answer(text): return text * 2",
        "/etc/config.txt": "ab",
        "deep/er/data.bin": bytes(range(256)),
    }

    result = run_in_docker("python3 main.py && wc -c < deep/er/data.bin && pwd", files=files)

    assert result.stdout.split() == ["abab", "256", "/workspace"]


def test_environment_and_working_directory_are_those_that_were_asked_for() -> None:
    result = run_in_docker("echo $KEY; pwd", environment={"KEY": "a b"}, working_dir="/tmp")

    assert result.stdout == "a b\n/tmp\n"


def test_a_command_over_its_time_is_ended() -> None:
    result = run_in_docker("echo so far; sleep 60", command_timeout=1)

    assert (result.exit_code, result.timed_out, result.stdout) == (124, True, "so far\n")
    assert "timed out" in result.stderr


def test_a_working_directory_that_the_image_lacks_is_made() -> None:
    assert run_in_docker("touch f && pwd", working_dir="/srv/job").check().stdout == "/srv/job\n"


def test_a_program_without_logging_hears_nothing_of_a_timeout(facade: Engine) -> None:
    code = "from podkit import run_in_docker; print(run_in_docker('sleep 60', command_timeout=0.5).timed_out)"
    process = start_python(code)
    assert process.communicate(timeout=60) == ("True\n", "")


def test_two_runs_share_nothing() -> None:
    first = run_in_docker("touch /tmp/left-behind; hostname")
    second = run_in_docker("ls /tmp/left-behind; hostname")

    assert second.stdout not in ("", first.stdout)
    assert "left-behind" not in second.stdout


def test_several_run_at_once(facade: Engine) -> None:
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda number: run_in_docker(["echo", str(number)]), range(4)))

    assert [result.stdout for result in results] == ["0\n", "1\n", "2\n", "3\n"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"command": ""},
        {"command": []},
        {"command": "true", "working_dir": "relative"},
        {"command": "true", "environment": {"A=B": "1"}},
        {"command": "true", "command_timeout": 0},
        {"command": "true", "files": {"": "text"}},
        {"command": "true", "image": ""},
    ],
    ids=str,
)
def test_bad_input_is_refused_and_nothing_is_made(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        run_in_docker(**wrong)  # type: ignore[arg-type]


def test_a_file_that_would_leave_the_workspace_is_refused() -> None:
    with pytest.raises(PathEscape, match=r"\.\."):
        run_in_docker("true", files={"../outside": "text"})


def test_the_container_of_a_caller_that_was_killed_stops_by_itself_within_seconds(facade: Engine) -> None:
    process = start_python("from podkit import run_in_docker; run_in_docker('sleep 60')")
    try:
        assert eventually(lambda: bool(facade.names()), seconds=20)
        [name] = facade.names()
        assert facade.inspect(name)["Config"]["Cmd"] == ["sleep", "10"]
        assert eventually(lambda: facade.state(name) == "running", seconds=20)
        process.kill()
        process.communicate()
        assert eventually(lambda: facade.state(name) == "exited", seconds=60)
    finally:
        process.kill()
        process.communicate()
        facade.clean_up()
