"""`clusterai up`, `down`, `status`: a whole network on this machine."""

import time
from pathlib import Path
from typing import Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure, needs_unix
from clusterai.cli.settings import command

STOP_S = 30.0

Port = Annotated[
    int,
    typer.Option(
        "--port",
        envvar="CLUSTERAI_PORT",
        min=1,
        max=65_500,
        help="Port of the API and console; those above it serve nodes, the chain and validators.",
    ),
]
Nodes = Annotated[
    int, typer.Option("--nodes", envvar="CLUSTERAI_NODES", min=1, max=16, help="Provider nodes to run.")
]
Validators = Annotated[
    int,
    typer.Option(
        "--validators",
        envvar="CLUSTERAI_VALIDATORS",
        min=1,
        max=16,
        help="Validators to run: from three on, a contested audit of a job can be judged. Those of earlier starts keep their seats.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        envvar="CLUSTERAI_MODEL",
        help="Model that they serve: a name, an address, or `tiny` for a toy without weights.",
    ),
]


def join(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(network)


def up(
    data: options.Data = None,
    port: Port = 8080,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            envvar="CLUSTERAI_HOST",
            help="What other machines call this one, an IPv4 address or a name: API, nodes' links and chain then listen for them.",
        ),
    ] = "127.0.0.1",
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="PEM: serve the API by HTTPS with this certificate.", show_default=False
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM: its key.", show_default=False)
    ] = None,
    nodes: Nodes = 2,
    validators: Validators = 1,
    model: Model = "smollm2-135m",
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready; `clusterai down` ends it.")
    ] = False,
    rent: Annotated[
        bool, typer.Option("--rent", help="Offer the nodes as whole machines too, for `clusterai rent`.")
    ] = False,
    vault: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="A vault to serve, in a node of its own; may be given several times, and more nodes are run where they are needed.",
            show_default=False,
        ),
    ] = None,
    window: Annotated[
        int,
        typer.Option(
            "--window",
            envvar="CLUSTERAI_WINDOW",
            min=60,
            max=86_400,
            help="Seconds of the audit window of a new network: work is settled after it, and who was away shows its work within it.",
        ),
    ] = 150,
    json: options.Json = False,
    quiet: options.Quiet = False,
    dry_run: options.DryRun = False,
) -> None:
    """Start a network on this machine: chain, gateway, nodes and validators.

    The first time it makes keys, a chain with the contracts, and an account with credit; after that it resumes what
    is in the data folder. Ctrl-C stops everything and loses nothing.
    """
    from clusterai.cli.local import room
    from clusterai.cli.local import wish as wishes
    from clusterai.cli.local.ports import Ports

    needs_unix("clusterai up")
    folder = options.folder(data)
    vaults = _vaults(vault or [])
    if rent:
        _rentable()
    tls = _tls(tls_certificate, tls_key, host)
    ports = Ports.beside(port, validators, host, tls is not None)
    wish = wishes.Wish(ports, max(nodes, len(vaults)), model, rent, vaults, window, tls)
    if dry_run:
        wishes.describe(folder, wish, json)
    elif detach:
        from clusterai.cli.local.detached import run_detached

        with room.needed(folder.root):
            run_detached(folder, wish, json)
    else:
        from clusterai.cli.local.up import run

        with room.needed(folder.root):
            run(folder, wish, json)


def _tls(certificate: Path | None, key: Path | None, host: str) -> tuple[str, str] | None:
    """
    Raises:
        Failure: one without the other, or they can't be used, or this machine itself wouldn't trust them.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise Failure(
            "HTTPS needs both", next="--tls-certificate FILE --tls-key FILE, both PEM", code=Exit.USAGE
        )
    from clusterai.cli.local.certified import shake

    shake(certificate, key, host)
    return str(certificate.resolve()), str(key.resolve())


def _rentable() -> None:
    """
    Raises:
        Failure: what clusters need isn't here.
    """
    from clusterai.node.config import RentalsConfig
    from clusterai.node.hardware import unrentable  # loads what a node needs

    if missing := unrentable(RentalsConfig().home):
        raise Failure(f"machines can't be rented out here: {missing.found}", next=missing.cure)


def _vaults(folders: list[Path]) -> tuple[str, ...]:
    """
    Raises:
        Failure: one is no vault, or given twice.
    """
    if not folders:
        return ()
    from clusterai.cli.serving import vault_in

    found = tuple(str(vault_in(folder).root) for folder in folders)
    if len(set(found)) != len(found):
        raise Failure("a vault is given twice", next="name each folder once", code=Exit.USAGE)
    return found


def down(data: options.Data = None, quiet: options.Quiet = False, json: options.Json = False) -> None:
    """Stop the network of a data folder; what it knows stays there."""
    import os
    import signal

    folder = options.folder(data)
    state = folder.running()
    say.say(f"stopping {len(state.services)} processes…")
    os.kill(state.pid, signal.SIGTERM)
    ends_s = time.monotonic() + STOP_S
    while folder.is_held():
        if time.monotonic() > ends_s:
            raise Failure(
                f"process {state.pid} is still there after {STOP_S:.0f} s",
                next=f"kill -9 {state.pid}   (its processes end with it; nothing acknowledged is lost)",
            )
        time.sleep(0.05)
    if json:
        say.emit({"stopped": True, "data": str(folder.root)})
    else:
        from clusterai.cli.local.ports import Ports

        say.say(f"stopped; `{command(Ports.of(state.gateway).again, folder.root)}` resumes")


def status(data: options.Data = None, json: options.Json = False, quiet: options.Quiet = False) -> int:
    """Say what runs, and whether it works. Exit code 3: nothing runs, or not all of it is ready."""
    from clusterai.cli.local import room

    folder = options.folder(data)
    state = folder.running()
    # On a full disk processes die, and the state that says so can't be written.
    is_full = room.is_full(folder.root)
    ready = state.phase == "ready" and all(service.state == "ready" for service in state.services)
    healthy = ready and not is_full
    if json:
        disk = {"free_bytes": room.free_bytes(folder.root)}
        say.emit({"data": str(folder.root), "healthy": healthy, **disk, **_as_dict(state)})
    else:
        say.pairs(
            [
                ("network", f"{state.phase}, for {age(time.time() - state.started_s)}"),
                ("data", folder.root),
                ("console", state.gateway),
                ("OPENAI_BASE_URL", f"{state.gateway}/v1"),
                ("chain", state.chain),
                *((("waiting for", state.doing),) if state.doing else ()),
            ]
        )
        if is_full:
            say.complain("\n".join(room.full(folder.root).lines()))
        say.tell()
        say.table(
            ("process", "state", "#pid", "#restarts", "since", "last end"),
            [
                (
                    one.name,
                    one.state,
                    one.pid or "-",
                    one.restarts,
                    age(time.time() - one.since_s),
                    one.last_error or "-",
                )
                for one in state.services
            ],
        )
    return Exit.OK if healthy else Exit.NOT_RUNNING


def network(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to put it: network.json.", show_default=False)
    ],
    digest: options.NetworkDigest,
    url: Annotated[
        str | None,
        typer.Option(
            "--gateway",
            metavar="URL",
            help="Ask this one. Default: the one of other commands.",
            show_default=False,
        ),
    ] = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fetch a network's manifest from a gateway, and keep it if it has the digest that the network publishes.

    What takes --network FILE asks the chain by it, not the gateway: `export CLUSTERAI_NETWORK=FILE` says it to all.
    """
    from clusterai.cli import joining
    from clusterai.cli.reach import gateway

    aside = file.with_name(f".{file.name}.told")
    with gateway(data, url=url) as client:
        joining.fetched(client, aside, options.pinned(digest))
    aside.replace(file)
    if json:
        say.emit({"file": str(file.resolve()), "network_digest": digest})
    else:
        say.tell(f"{file} is the manifest of network {digest}")
        say.say(f"export CLUSTERAI_NETWORK={file.resolve()}")


def age(seconds: float) -> str:
    """`12 s`, `3 min`, `5 h`: a duration as people say it."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _as_dict(state: object) -> dict[str, object]:
    import msgspec

    return msgspec.to_builtins(state)
