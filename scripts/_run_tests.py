"""The last step of test.sh, which becomes this process, so that a signal for the one reaches the other.

Runs pytest, in a container of the runner's image or right here, gives back its exit code, and leaves nothing behind.
Tests that failed are run once more, alone and one after another: what passes then is unsteady, and named.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from _engine import Engine, find, output
from docker.errors import APIError, NotFound  # noqa: TID251

GRACE_SECONDS = 10  # for the fixtures of interrupted tests to remove what they made
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE
LABEL = "podkit.test-runner"
DEFAULT_ARGUMENTS = ["-n", "4"]
OWN_ENGINE = "tests/trust/engine"  # tests that start an engine themselves: no container of another engine can do that
FAILED = "failed.json"  # in the workspace
UNSTEADY_MOST = 3  # with more of them the run fails
AGAIN_MOST = 20  # with more that failed, it is no matter of chance


class Interrupted(BaseException):
    """A signal came; a second one ends the wait for the tests' own clean-up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main() -> None:
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, interrupt)
    run = None
    try:
        image, *arguments = sys.argv[1:]
        run = Run(find())
        code = run.tests(image, arguments) if arguments else run.whole_suite(image)
    except Interrupted as exc:
        code = 128 + exc.number
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # the clean-up is short, and has to end
        if run:
            run.clean_up()
    sys.exit(code if code >= 0 else 128 - code)


def why_no_own_engine() -> str | None:
    """Say why tests cannot start an engine of their own here; `None` where they can."""
    sys.path.append(str(Path.cwd()))
    from tests.support.private_engine import why_not

    return why_not()


def interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


class Run:
    """One run of the tests; all that belongs to it has its id in a name, a label or a path."""

    def __init__(self, engine: Engine) -> None:
        self.client = engine.client
        self.host = engine.url
        self.id = secrets.token_hex(6)
        self.marks = [self.id]
        self.workspace = Path.cwd() / ".test-workspace" / self.id
        self.workspace.mkdir(parents=True)
        self.environment = {
            "PODKIT_TEST_RUN_ID": self.id,
            "PODKIT_TEST_WORKSPACE": str(self.workspace),
            "PODKIT_TEST_WORKSPACE_HOST": str(self.workspace),
            "PODKIT_TEST_FAILED": str(self.workspace / FAILED),
        }

    def whole_suite(self, image: str) -> int:
        """Run all tests; those that start an engine run right here, after the others."""
        reason = why_no_own_engine()
        if reason and os.environ.get("CI"):
            sys.exit(f"{OWN_ENGINE} cannot be run: {reason}")
        code = self.tests(image, [*DEFAULT_ARGUMENTS, f"--ignore={OWN_ENGINE}"])
        if reason:
            print(f"Not run: {OWN_ENGINE}, as {reason}", file=sys.stderr)
            return code
        print(f"Now {OWN_ENGINE}, with engines of their own, right here", flush=True)
        return self.tests("", [*DEFAULT_ARGUMENTS, OWN_ENGINE]) or code

    def tests(self, image: str, arguments: list[str]) -> int:
        """Run some tests, in a container of the image or right here without one, and once more what failed."""
        code = self.once(image, [*arguments, f"--ignore={OWN_ENGINE}"] if image else arguments)
        failed = self.failed_tests()
        if len(failed) > AGAIN_MOST:
            print(f"{len(failed)} tests failed: too many to look whether they are unsteady", file=sys.stderr)
        elif failed:
            print(f"\nOnce more, alone and one after another, what failed ({len(failed)})", flush=True)
            return self.once_more(image, failed, code)
        return code

    def once_more(self, image: str, failed: list[str], code: int) -> int:
        """Run tests that failed, with `code`; give the exit code of both runs together."""
        again = self.once(image, ["-n", "0", *failed])
        still = self.failed_tests() if again else []
        if again and not still:
            return again
        unsteady = [name for name in failed if name not in still]
        for name in unsteady:
            print(f"UNSTEADY, failed once and passed alone: {name}")
        return again or (code if len(unsteady) > UNSTEADY_MOST else 0)

    def once(self, image: str, arguments: list[str]) -> int:
        with contextlib.suppress(FileNotFoundError):
            (self.workspace / FAILED).unlink()
        return self.in_container(image, arguments) if image else self.here(arguments)

    def failed_tests(self) -> list[str]:
        """Which tests failed in the run before; none where something else went wrong as well."""
        with contextlib.suppress(FileNotFoundError):
            return list(json.loads((self.workspace / FAILED).read_text()))
        return []

    def here(self, arguments: list[str]) -> int:
        command = [sys.executable, "-m", "pytest", *arguments]
        # Ctrl-C at a terminal reaches pytest by itself, and --pdb needs the terminal. Elsewhere it is passed on, in
        # all cases once: a second one would end the fixtures in the middle.
        terminal = sys.stdin.isatty()
        environment = os.environ | self.environment
        with subprocess.Popen(command, env=environment, start_new_session=not terminal) as pytest:
            try:
                return pytest.wait()
            except Interrupted as exc:
                if not (terminal and exc.number == signal.SIGINT):
                    pytest.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pytest.wait(GRACE_SECONDS)
                raise
            finally:
                pytest.kill()

    def in_container(self, image: str, arguments: list[str]) -> int:
        if not self.host.startswith("unix://"):
            sys.exit(f"The runner needs the engine's socket, and this engine is at {self.host}: try --local")
        network = f"podkit-runner-{self.id}"
        if not self.client.networks(names=[network]):
            self.client.create_network(network, driver="bridge", labels={LABEL: self.id})
        self.remove_runner()
        container = self.client.create_container(
            image,
            ["python", "-m", "pytest", *arguments],
            name=network,
            labels={LABEL: self.id},
            tty=sys.stdout.isatty(),
            environment=self.runner_environment(network),
            host_config=self.client.create_host_config(
                binds=[
                    f"{self.host.removeprefix('unix://')}:/var/run/docker.sock",
                    f"{self.workspace}:/test-workspace",
                ],
                network_mode=network,
                init=True,
            ),
        )["Id"]
        self.marks.append(container[:12])  # its hostname, by which podkit labels what it makes in there
        printer = self.print_output_of(container)
        self.client.start(container)
        try:
            printer()
        except Interrupted:
            with contextlib.suppress(APIError):  # to every process: pytest's workers have the fixtures
                self.client.exec_start(self.client.exec_create(container, ["sh", "-c", "kill -INT -1"]))
            printer(GRACE_SECONDS)
            raise
        return int(self.client.wait(container, timeout=None)["StatusCode"])

    def runner_environment(self, network: str) -> dict[str, str]:
        passed = {
            name: value
            for name, value in os.environ.items()
            if name in ("CI", "PYTEST_ADDOPTS", "PODKIT_DEFAULT_IMAGE", "TERM") or name.startswith("PODKIT_TEST_")
        }
        passed["COLUMNS"] = str(shutil.get_terminal_size().columns)
        passed |= {"PODKIT_TEST_IN_RUNNER": "1", "PODKIT_TEST_RUNNER_NETWORK": network}
        here = {"PODKIT_TEST_WORKSPACE": "/test-workspace", "PODKIT_TEST_FAILED": f"/test-workspace/{FAILED}"}
        return passed | self.environment | here

    def print_output_of(self, container: str) -> Callable[..., bool]:
        """Starts printing; what it returns waits for the end, at most as many seconds as it is given."""
        chunks = self.client.attach(container, stream=True)
        ended = threading.Event()  # not join(): one that a signal ended takes the thread for ended as well

        def copy() -> None:
            try:
                for chunk in chunks:
                    sys.stdout.buffer.write(chunk)
                    sys.stdout.buffer.flush()
            except BrokenPipeError:
                pass  # the main thread gets the signal
            finally:
                ended.set()

        threading.Thread(target=copy, daemon=True).start()
        return ended.wait

    def clean_up(self) -> None:
        try:
            self.clean_engine()
        finally:
            self.clean_workspace()

    def remove_runner(self) -> None:
        with contextlib.suppress(NotFound):
            self.client.remove_container(f"podkit-runner-{self.id}", force=True, v=True)

    def clean_engine(self) -> None:
        runner = f"podkit-runner-{self.id}"
        self.remove_runner()
        for row in filter(self.is_ours, self.client.containers(all=True)):
            self.remove("container", row["Names"][0].lstrip("/"), self.client.remove_container, force=True, v=True)
        for row in filter(self.is_ours, self.client.volumes()["Volumes"] or []):
            self.remove("volume", row["Name"], self.client.remove_volume, force=True)
        for row in filter(self.is_ours, self.client.networks()):
            self.remove("network", row["Name"], self.client.remove_network, quiet=row["Name"] == runner)

    def clean_workspace(self) -> None:
        shutil.rmtree(self.workspace, ignore_errors=True)
        if self.workspace.exists():  # files that a container's root made, where we are not root
            binds = [f"{self.workspace.parent}:/parent"]
            output(self.client, os.environ["PODKIT_DEFAULT_IMAGE"], ["rm", "-rf", f"/parent/{self.id}"], binds)
        with contextlib.suppress(OSError):  # not empty: another run goes on
            self.workspace.parent.rmdir()

    def is_ours(self, row: dict[str, Any]) -> bool:
        text = json.dumps(row)  # names, labels, networks and the sources of mounts
        return any(mark in text for mark in self.marks)

    def remove(self, kind: str, name: str, how: Callable[..., None], *, quiet: bool = False, **options: bool) -> None:
        if not quiet:
            print(f"removing a {kind} that the tests left: {name}", file=sys.stderr)
        try:
            how(name, **options)
        except APIError as exc:
            print(f"{kind} {name} could not be removed: {exc.explanation}", file=sys.stderr)


if __name__ == "__main__":
    main()
