"""What `up` is asked for and what it answers. Light: the one who waits for a detached network imports no more."""

from collections.abc import Collection
from pathlib import Path

import msgspec

from clusterai.cli import say
from clusterai.cli.local.folder import DataFolder, LocalAccount, node_name, validator_name
from clusterai.cli.local.models import EMBEDDING, SEALED
from clusterai.cli.local.ports import Ports
from clusterai.cli.settings import command

READY_S = 300.0
"""The first start converts a model; a slow disk may take minutes for a big one."""


WINDOW_S = 150
"""Audit window of a new network: who stands still for 90 s, at whatever moment, still shows its work in time; disputes end in minutes."""


class Wish(msgspec.Struct, frozen=True):
    """What `up` was asked for."""

    ports: Ports
    nodes: int
    model: str
    rent: bool = False
    """whether the nodes are offered whole"""
    vaults: tuple[str, ...] = ()
    """folders; each is held by a node of its own: the first by the first, and so on"""

    window_s: int = WINDOW_S
    """of a network that is new"""
    tls: tuple[str, str] | None = None
    """PEM files by which the API is HTTPS: the certificate with its chain, and its key"""

    @property
    def validators(self) -> int:
        """Each has a port."""
        return len(self.ports.validators)


class Ready(msgspec.Struct, frozen=True):
    """What a person or a program needs to use the network."""

    data: str
    console: str
    openai_base_url: str
    openai_api_key: str
    model: str
    curl: str
    ready_after_s: float
    network_digest: str
    warnings: tuple[str, ...] = ()
    """what doesn't serve, and the command that cures it"""


def describe(folder: DataFolder, wish: Wish, json: bool) -> None:
    """What `up` would do, for `--dry-run`."""
    known = folder.manifest.exists()
    plan = {
        "data": str(folder.root),
        "resumes": known,
        "ports": msgspec.to_builtins(wish.ports),
        "model": wish.model,
        "processes": [
            "chain",
            "gateway",
            *(node_name(at) for at in range(wish.nodes)),
            *(validator_name(at) for at in range(wish.validators)),
        ],
        **(
            {"vaults": dict(zip(map(node_name, range(wish.nodes)), wish.vaults, strict=False))}
            if wish.vaults
            else {}
        ),
    }
    if json:
        say.emit(plan)
    else:
        say.pairs(plan.items())


def ready(folder: DataFolder, wish: Wish, after_s: float, barred: Collection[str]) -> Ready:
    """
    Args:
        barred: names of nodes that were convicted.
    """
    from clusterai.ledger.adapters.network import load_network, network_digest
    from clusterai.protocol.ids import hex0x

    account: LocalAccount = folder.local_account()
    digest = hex0x(network_digest(load_network(folder.manifest)))
    base = f"{wish.ports.api_url}/v1"
    path, asked = "chat/completions", '"messages": [{"role": "user", "content": "Hello!"}]'
    if wish.model == EMBEDDING:
        path, asked = "embeddings", '"input": "Hello!"'
    curl = (
        f"{command(f'infer --encrypted --model {wish.model}', folder.root)} FILE"
        if wish.model.startswith(SEALED)
        else (
            f"curl {base}/{path} -H 'Authorization: Bearer {account.key}' -H 'Content-Type: application/json' "
            f'-d \'{{"model": "{wish.model}", {asked}}}\''
        )
    )
    warnings = tuple(_of_barred(folder, wish, name) for name in sorted(barred)) + _of_openness(wish.ports)
    return Ready(
        str(folder.root), wish.ports.api_url, base, account.key, wish.model, curl, after_s, digest, warnings
    )


def _of_openness(ports: Ports) -> tuple[str, ...]:
    """What whoever lets others in has to know."""
    if not ports.is_open:
        return ()
    doors = f"TCP {ports.api} (API), {ports.link} (nodes) and {ports.chain} (chain), and UDP (private networks of rented machines)"
    told = f"other machines call {ports.host}: a firewall must let in {doors}; the chain takes anybody's transactions, so let in whom you know"
    if ports.tls:
        return (told,)
    plain = "the API is plain HTTP: who is on the way reads keys and prompts, and can spend by the keys"
    return told, f"{plain}. HTTPS: --tls-certificate FILE --tls-key FILE"


def _of_barred(folder: DataFolder, wish: Wish, name: str) -> str:
    held = dict(zip(map(node_name, range(wish.nodes)), wish.vaults, strict=False)).get(name)
    lost = f", and nobody can reach the vault {held}" if held else ""
    return f"{name} was convicted and serves nothing{lost}: {command('demo restore', folder.root)}"


def announce(made: Ready, json: bool, detached: bool) -> None:
    if json:
        say.emit(made)
        return
    data = Path(made.data)
    say.say(f"\n[bold green]ready[/] after {made.ready_after_s:.1f} s; console: [bold]{made.console}[/]\n")
    print(f"export OPENAI_BASE_URL={made.openai_base_url}")
    print(f"export OPENAI_API_KEY={made.openai_api_key}")
    print(f"\n{made.curl}", flush=True)
    say.say(
        f"\nanother node joins by:  clusterai node join {made.console} --network-digest {made.network_digest}"
    )
    for warning in made.warnings:
        say.say(f"[yellow]![/] {warning}")
    say.say(f"watch a cheat being caught:  {command('demo cheat', data)}")
    say.say(f"stop:  {command('down', data)}" if detached else "stop:  Ctrl-C")
