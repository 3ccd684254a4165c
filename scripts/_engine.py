"""What the scripts ask of the engine, through the Docker SDK: a machine may have an engine and no `docker` command.

Of podkit it uses one module only, the one that knows where an engine may listen: so both find the same.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import docker  # noqa: TID251 - see above
import requests  # noqa: TID251
from docker.errors import APIError, DockerException, ImageNotFound  # noqa: TID251

from podkit.backends._endpoint import Endpoint, find_endpoints
from podkit.errors import EngineUnavailable

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

    endpoint, client = find()
    match asked.verb:
        case "find":
            print(endpoint.url, "" if endpoint in podkits_own() else "told")
        case "has":
            sys.exit(0 if image_id(client, asked.image) else 1)
        case "pull":
            pull(endpoint, asked.image)
        case "import":
            repository, tag = docker.utils.parse_repository_tag(asked.image)
            reply = client.import_image(asked.tar, repository, tag, changes=asked.changes)
            follow(json.loads(line) for line in reply.splitlines())
        case "build":
            build(endpoint, asked.tar, asked.image, asked.args)
        case "output":
            print(output(client, asked.image, asked.command), end="")


def fail(code: int, *lines: str) -> NoReturn:
    print(*lines, sep="\n", file=sys.stderr)
    sys.exit(code)


# --- which engine ------------------------------------------------------------------------------------


def find() -> tuple[Endpoint, docker.APIClient]:
    """The engine that answers, or the end of the program with the reason and the cure.

    It is looked for where podkit looks. Where a docker context is stale, the usual sockets come after it: podkit
    itself would stop there, so the scripts then tell it by DOCKER_HOST.
    """
    tried: list[str] = []
    explicit = os.environ.get("DOCKER_HOST") or None
    usual = [] if explicit else find_endpoints({**os.environ, **NO_CONTEXT})
    for endpoint in dict.fromkeys([*podkits_own(), *usual]):
        if not endpoint.url.startswith(("unix://", "tcp://")):
            tried.append(f"  {endpoint}: podkit speaks unix:// and tcp:// only")
            continue
        try:
            return endpoint, connect(endpoint)
        except (DockerException, requests.RequestException) as exc:
            tried.append(f"  {endpoint}: {root_cause(exc)}")
            if isinstance(root_cause(exc), PermissionError):
                fail(
                    NOT_ALLOWED,
                    f"There is an engine, but you may not use it: {endpoint}. Join its group, then log in again:",
                    "  sudo usermod -aG docker $USER",
                )
    if explicit not in (None, USUAL):
        fail(NOT_AS_SET, "DOCKER_HOST names an engine that does not answer:", *tried, "Start it, or: unset DOCKER_HOST")
    fail(NOT_THERE, "No engine answers. Tried:", *tried)


def connect(endpoint: Endpoint, timeout: float = 60) -> docker.APIClient:
    tls = None
    if found := endpoint.tls:
        certificate = found.file("cert.pem"), found.file("key.pem")
        tls = docker.tls.TLSConfig(certificate if all(certificate) else None, found.file("ca.pem"), found.verify)
    client = docker.APIClient(base_url=endpoint.url, version="auto", timeout=timeout, tls=tls or False)
    client.ping()
    return client


def podkits_own() -> list[Endpoint]:
    """Where podkit would look without being told."""
    try:
        return find_endpoints(os.environ)
    except EngineUnavailable:
        return []


def root_cause(exc: BaseException) -> BaseException:
    """The innermost error: the SDK wraps `No such file or directory` four times."""
    while inner := exc.__cause__ or exc.__context__:
        exc = inner
    return exc


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


def pull(endpoint: Endpoint, name: str) -> None:
    client = connect(endpoint, SILENCE_SECONDS)
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
        fail(1, f"{name}: {exc.explanation if isinstance(exc, APIError) else root_cause(exc)}")


def build(endpoint: Endpoint, tar: str, name: str, args: list[str]) -> None:
    """Builds an image; what had its name before goes, or every change of a test would leave one behind."""
    # Nothing is pulled, so nothing of the docker client's configuration is needed, and its helpers may be gone.
    # The file must be there while the SDK builds: without one it goes on looking elsewhere.
    with tempfile.TemporaryDirectory() as folder, open(tar, "rb") as context:
        Path(folder, "config.json").write_text("{}")
        os.environ["DOCKER_CONFIG"] = folder
        client = connect(endpoint)
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
