"""How programs reach the cluster: addresses, and the file with the token, as environment variables of Ray."""

import shlex
from pathlib import Path

import msgspec

from clusterai.cli import say
from clusterai.sdk.rentalshapes import Rental
from clusterai.work.cluster.spec import CLIENT_PORT, JOBS_PORT


class Entry(msgspec.Struct, frozen=True):
    """Attributes:
    jobs: for `ray job submit` (RAY_ADDRESS).
    client: for `ray.init`.
    """

    jobs: str
    client: str
    token_path: str

    def variables(self) -> dict[str, str]:
        return {
            "RAY_ADDRESS": self.jobs,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": self.token_path,
        }


def entry_of(it: Rental, token: Path) -> Entry:
    return Entry(f"http://{it.head}:{JOBS_PORT}", f"ray://{it.head}:{CLIENT_PORT}", str(token))


def tell(entry: Entry) -> None:
    """For `eval "$(clusterai rent … --yes --quiet)"` as well as for people."""
    for name, value in entry.variables().items():
        say.tell(f"export {name}={shlex.quote(value)}")
    say.say(
        f'\nin Python: ray.init("{entry.client}")    a job: ray job submit --working-dir . -- python train.py'
    )
