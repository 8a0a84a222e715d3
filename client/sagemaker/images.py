"""Container images: build both and push them to the account's registry."""

import base64
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from lstm_fcn.client.sagemaker.account import Account, send
from lstm_fcn.client.sagemaker.request import Request, join
from lstm_fcn.container.errors import UserError

IMAGES = {"lstm-fcn-train": "Dockerfile.train", "lstm-fcn-serve": "Dockerfile.serve"}
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"  # the only one that SageMaker accepts (T12)
STANDARD_ERROR = 2  # for docker's progress; standard output is for the command's results


def registry(account: str, region: str) -> str:
    """Address of an account's image registry."""
    return f"{account}.dkr.ecr.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")


def repositories() -> list[Request]:
    """`CreateRepository` for both images."""
    scan = {"imageScanningConfiguration": {"scanOnPush": True}}
    return [Request("ecr", "CreateRepository", {"repositoryName": name, **scan}) for name in IMAGES]


def docker_commands(address: str, tag: str, context: str) -> list[list[str]]:
    """Commands that build, tag and push both images from the folder `context`.

    The images are for one platform and have no attestations (T11, T12).
    """
    commands = []
    flags = ["--platform", "linux/amd64", "--provenance=false", "--sbom=false"]
    for name, file in IMAGES.items():
        commands += [
            ["docker", "build", *flags, "-f", join(context, file), "-t", f"{name}:{tag}", context],
            ["docker", "tag", f"{name}:{tag}", f"{address}/{name}:{tag}"],
            ["docker", "push", f"{address}/{name}:{tag}"],
        ]
    return commands


def push(
    tag: str, context: Path, account: Account | None = None, report: Callable[[str], None] = print
) -> dict[str, str]:
    """Build both images from the folder `context` and push them, creating missing repositories.

    Args:
        report: receives a line for each step.

    Returns:
        The addresses of the images, by name.

    Raises:
        UserError: docker is missing or fails, or writes manifests that SageMaker refuses.
    """
    account = account or Account()
    check_context(context)
    address = registry(*account.identity())
    for request in repositories():
        name = request.parameters["repositoryName"]
        if account.find(Request("ecr", "DescribeRepositories", {"repositoryNames": [name]})) is None:
            report(f"creating the repository {name}")
            send([request], account)
    token = account.call(Request("ecr", "GetAuthorizationToken", {}))["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(token).decode().partition(":")
    _docker(["docker", "login", "--username", user, "--password-stdin", address], password)
    for command in docker_commands(address, tag, str(context)):
        report(" ".join(command))
        _docker(command)
    for name in IMAGES:
        _check_manifest(name, tag, account)
    return {name: f"{address}/{name}:{tag}" for name in IMAGES}


def check_context(context: Path) -> None:
    """Raise a `UserError` if the Dockerfiles are not in the folder."""
    for file in IMAGES.values():
        if not (context / file).is_file():
            raise UserError(f"{context / file} does not exist; --context must be the folder with the source code.")


def _docker(command: Sequence[str], text: str | None = None) -> None:
    try:
        subprocess.run(command, input=text, text=True, check=True, stdout=STANDARD_ERROR)
    except FileNotFoundError as error:
        raise UserError("docker is not installed; install it, or build the images on another machine.") from error
    except subprocess.CalledProcessError as error:
        raise UserError(f"`{' '.join(command)}` failed with exit code {error.returncode}.") from error


def _check_manifest(name: str, tag: str, account: Account) -> None:
    request = Request("ecr", "DescribeImages", {"repositoryName": name, "imageIds": [{"imageTag": tag}]})
    found = account.call(request)["imageDetails"][0].get("imageManifestMediaType", DOCKER_MANIFEST)
    if found != DOCKER_MANIFEST:
        raise UserError(
            f"{name}:{tag} was pushed as {found}, which SageMaker refuses. Turn off docker's containerd image store, "
            "or push with `docker buildx build --output type=image,push=true,oci-mediatypes=false`."
        )
