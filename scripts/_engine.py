"""The scripts' requests to the engine, through the Docker SDK: a machine may have an engine and no `docker` command.

The engine is found by podkit's own backend, so that both find the same one.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from unittest.mock import patch

import docker  # noqa: TID251 - see above
import requests  # noqa: TID251
from docker.errors import APIError, DockerException, ImageNotFound  # noqa: TID251

from podkit.backends._docker_sdk import make_client
from podkit.backends.docker import DockerBackend
from podkit.errors import EngineAccessDenied, EngineUnavailable

NOT_THERE, NOT_ALLOWED, NOT_AS_SET = 3, 4, 5  # exit codes of `find`: only after the first is an engine installed
USUAL = "unix:///var/run/docker.sock"
NO_CONTEXT = {"DOCKER_CONTEXT": "", "DOCKER_CONFIG": os.devnull}
SILENCE_SECONDS = 15  # a registry that is there has said something by then


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="verb", required=True)
    commands.add_parser("find", help="print the address of the engine that answers")
    for verb in ("has", "pull"):
        commands.add_parser(verb).add_argument("image")
    load = commands.add_parser("import", help="make an image of a file system in a tar file")
    load.add_argument("tar")
    load.add_argument("image")
    load.add_argument("changes", nargs="*")
    make = commands.add_parser("build", help="build an image of a tar file with Dockerfile.test in it")
    make.add_argument("tar")
    make.add_argument("image")
    make.add_argument("args", nargs="*")
    run = commands.add_parser("output", help="print what a command says in a fresh container")
    run.add_argument("image")
    run.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()

    engine = find()
    client = engine.client
    match asked.verb:
        case "find":
            print(engine.url, "told" if engine.is_told else "")
        case "has":
            sys.exit(0 if image_id(client, asked.image) else 1)
        case "pull":
            pull(client, asked.image)
        case "import":
            repository, tag = docker.utils.parse_repository_tag(asked.image)
            reply = client.import_image(asked.tar, repository, tag, changes=asked.changes)
            follow(json.loads(line) for line in reply.splitlines())
        case "build":
            build(engine, asked.tar, asked.image, asked.args)
        case "output":
            print(output(client, asked.image, asked.command), end="")


def fail(code: int, *lines: str) -> NoReturn:
    print(*lines, sep="\n", file=sys.stderr)
    sys.exit(code)


# --- which engine ------------------------------------------------------------------------------------


class Engine(NamedTuple):
    """The engine that answers.

    `is_told` means that podkit would stop at a stale docker context: the scripts then tell it by DOCKER_HOST.
    """

    backend: DockerBackend
    is_told: bool = False

    @property
    def url(self) -> str:
        assert self.backend._endpoint is not None
        return self.backend._endpoint.url

    @property
    def client(self) -> docker.APIClient:
        return self.backend.client.api

    def new_client(self) -> docker.APIClient:
        """Another client, for which the environment counts as it is now."""
        assert self.backend._endpoint is not None
        return make_client(self.backend._endpoint, self.backend._version).api


def find() -> Engine:
    """Find the engine as podkit does, or end the program with the reason and the cure."""
    explicit = os.environ.get("DOCKER_HOST") or None
    try:
        return Engine(connected())
    except EngineAccessDenied as exc:
        fail(NOT_ALLOWED, str(exc))
    except EngineUnavailable as exc:
        tried = str(exc)
    if explicit not in (None, USUAL):
        fail(NOT_AS_SET, "DOCKER_HOST names an engine that does not answer.", tried, "Or: unset DOCKER_HOST")
    if explicit is None:
        with patch.dict(os.environ, NO_CONTEXT), suppress(EngineUnavailable):
            try:
                return Engine(connected(), is_told=True)
            except EngineAccessDenied as exc:
                fail(NOT_ALLOWED, str(exc))
    fail(NOT_THERE, tried)


def connected() -> DockerBackend:
    backend = DockerBackend()
    backend.connect()
    return backend


# --- images ------------------------------------------------------------------------------------------


def image_id(client: docker.APIClient, name: str) -> str | None:
    try:
        return str(client.inspect_image(name)["Id"])
    except ImageNotFound:
        return None


def follow(events: Iterable[dict[str, Any]]) -> None:
    """Prints an engine's progress a line at a time; its errors come in the same stream, under status 200."""
    for event in events:
        if "error" in event:
            fail(1, event["error"])
        text = event.get("stream") or " ".join(event[key] for key in ("id", "status", "progress") if event.get(key))
        if text.strip():
            print(text.strip(), flush=True)


def pull(client: docker.APIClient, name: str) -> None:
    client.timeout = SILENCE_SECONDS
    repository, tag = docker.utils.parse_repository_tag(name)
    # Its timeout is for each read, so a slow pull goes on as long as it says something.
    options = {"tag": tag or "latest", "stream": True, "decode": True}
    try:
        try:
            events = client.pull(repository, **options)
        except APIError:
            raise
        except DockerException as exc:  # such as a credential helper that is gone
            print(f"without your docker credentials: {exc}")
            events = client.pull(repository, **options, auth_config={})
        follow(events)
    except (DockerException, requests.RequestException) as exc:
        fail(1, f"{name}: {exc.explanation if isinstance(exc, APIError) else exc}")


def build(engine: Engine, tar: str, name: str, args: list[str]) -> None:
    """Builds an image; what had its name before goes, or every change of a test would leave one behind."""
    # Nothing is pulled, so nothing of the docker client's configuration is needed, and its helpers may be gone.
    # The file must be there while the SDK builds: without one it goes on looking elsewhere.
    with tempfile.TemporaryDirectory() as folder, open(tar, "rb") as context:
        Path(folder, "config.json").write_text("{}")
        os.environ["DOCKER_CONFIG"] = folder
        client = engine.new_client()
        options = {"custom_context": True, "dockerfile": "Dockerfile.test", "forcerm": True, "decode": True}
        follow(client.build(fileobj=context, tag=name, buildargs=dict(arg.split("=", 1) for arg in args), **options))
        client.prune_images({"dangling": True, "label": "podkit.image=test-runner"})


# --- containers --------------------------------------------------------------------------------------


def output(client: docker.APIClient, image: str, command: list[str], binds: Iterable[str] = ()) -> str:
    """What a short command says in a fresh container, as its root."""
    settings = client.create_host_config(network_mode="none", binds=list(binds))
    container = client.create_container(image, command, entrypoint=[], user="0", host_config=settings)["Id"]
    try:
        client.start(container)
        code = client.wait(container)["StatusCode"]
        text = client.logs(container).decode(errors="replace")
    finally:
        client.remove_container(container, force=True, v=True)
    if code:
        fail(1, f"{command[0]} in {image}: exit code {code}", text)
    return text


if __name__ == "__main__":
    main()
