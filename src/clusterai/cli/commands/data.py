"""`clusterai data …`: publish a folder as a data set, hold one for others, fetch one from several holders at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.commands import access, contribution, reward
from clusterai.cli.commands.buy import buy, refund
from clusterai.cli.commands.known import known
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.identity import IdentityFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from clusterai.content import Holder
    from clusterai.protocol.ids import Digest
    from clusterai.sdk.vaults import Listed

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder with the files.", show_default=False)]


def join(app: typer.Typer) -> None:
    group = typer.Typer(help="Data sets: publish, hold, find and fetch them.", no_args_is_help=True)
    group.command()(publish)
    group.command()(hold)
    group.command()(search)
    group.command()(show)
    group.command()(mock)
    group.command()(fetch)
    group.command()(buy)
    group.command()(refund)
    group.command()(access.request)
    group.command()(access.grants)
    group.command()(known)
    group.command()(contribution.contribution)
    reward.join_group(group)
    group.command()(access.review)
    group.command()(access.result)
    app.add_typer(group, name="data")


def publish(
    folder: Folder,
    name: Annotated[
        str | None, typer.Option(help="Short name; default: the folder's.", show_default=False)
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Default: README.md's first heading.", show_default=False)
    ] = None,
    description: Annotated[
        str | None, typer.Option(help="Default: README.md's first paragraph.", show_default=False)
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="SPDX name, such as CC-BY-4.0.", show_default=False)
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="May be repeated.", show_default=False)] = None,
    personal: Annotated[
        str | None,
        typer.Option(help="What is in it of personal data, and how that was treated.", show_default=False),
    ] = None,
    holder: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Where it can be fetched; may be repeated.", show_default=False),
    ] = None,
    piece_kib: Annotated[
        int, typer.Option(min=64, max=16384, help="Size of a piece, a power of two.")
    ] = 1024,
    offline: Annotated[
        bool, typer.Option("--offline", help="Sign and list nothing: the files beside the folder's are all.")
    ] = False,
    identity: IdentityFile = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Hash a folder, describe it, and list it at the gateway. Manifest, Croissant card and README come into DIR/.clusterai."""
    from clusterai.cli import reach
    from clusterai.cli.datasets import publishing

    if piece_kib & (piece_kib - 1):
        raise Failure(f"--piece-kib {piece_kib} is no power of two", next="--piece-kib 1024", code=Exit.USAGE)
    wish = publishing.Wish(
        name=name,
        title=title,
        description=description,
        licence=licence,
        tags=tuple(tag or ()),
        personal=personal,
        holders=tuple(holder or ()),
        piece_bytes=piece_kib << 10,
    )
    say.say(f"hashing {folder}…")
    if not offline:
        try:
            reach.found(data)  # before hours of hashing
        except Failure as failure:
            raise Failure(failure.what, failure.why, f"{failure.next}; or --offline", failure.code) from None
    manifest, card, done = publishing.describe(folder, wish)
    if not offline:
        from clusterai.cli.datasets import listing
        from clusterai.cli.identity import identity_at

        own = identity_at(identity)
        dataset = listing.at_gateway(
            data, lambda vaults: listing.listed(vaults, folder, card, manifest.address(), own)
        )
        done = publishing.with_dataset(done, dataset)
    if json:
        say.emit(done)
        return
    say.tell(f"{done.name}  {done.dataset or done.address}")
    if done.dataset:
        say.say("listed for a day; data hold --list lists it again for as long as it runs")
    say.say(
        f"{done.files} files, {done.bytes / 1e6:.1f} MB, {done.pieces} pieces; card and manifest in {done.card}"
    )
    for url in publishing.listed_at(done.holders):
        say.say(f"{url} is no address that strangers dial: only --private finds it")
    if not done.holders:
        say.say(
            f"hold it: clusterai data hold {folder}; or copy DIR with .clusterai to any web server or bucket"
        )


def hold(
    folder: Folder,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = "127.0.0.1:8090",
    rate: Annotated[
        float, typer.Option(min=0, metavar="MB/S", help="At most so much in all; 0 is no limit.")
    ] = 0,
    again: Annotated[
        bool, typer.Option("--list", help="List it at the gateway again and again while it is held.")
    ] = False,
    data: options.Data = None,
    certificate: Annotated[
        Path | None, typer.Option(help="TLS certificate chain, PEM.", show_default=False)
    ] = None,
    certificate_key: Annotated[Path | None, typer.Option(help="Its key, PEM.", show_default=False)] = None,
    quiet: options.Quiet = False,
) -> None:
    """Serve a published folder to whoever fetches it. Runs until it is interrupted."""
    import asyncio

    from clusterai.cli.datasets import publishing

    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise Failure(f"--listen {listen} is no HOST:PORT", next="--listen 0.0.0.0:8090", code=Exit.USAGE)
    if (certificate is None) != (certificate_key is None):
        raise Failure("TLS needs --certificate and --certificate-key", code=Exit.USAGE)
    say.say(f"checking {folder}…")
    manifest = publishing.held(folder)
    holder = publishing.holder(folder, manifest, rate)
    lister = None
    if again:
        from clusterai.cli import reach
        from clusterai.cli.datasets import listing

        said = listing.kept(folder)
        if said is None:
            raise Failure(
                f"{folder} was published without a listing", next=f"clusterai data publish {folder}"
            )
        url, key = reach.found(data)

        def repeat() -> "Awaitable[None]":
            return listing.repeated(url, key, said)

        lister = repeat
    asyncio.run(_held(holder, host.strip("[]"), int(port), certificate, certificate_key, lister))
    say.say(f"sent {holder.bytes_sent / 1e6:.1f} MB")


async def _held(
    holder: "Holder",
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    lister: "Callable[[], Awaitable[None]] | None",
) -> None:
    import asyncio
    import signal
    import ssl

    tls = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            tls.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise Failure(f"{certificate} can't be used", str(error)) from None
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        bound = await holder.start(host, port, tls)
    except OSError as error:
        raise Failure(
            f"can't listen on {host}:{port}", error.strerror or str(error), code=Exit.BUSY
        ) from None
    shown = f"[{host}]" if ":" in host else host
    say.tell(f"{'https' if tls else 'http'}://{shown}:{bound}")
    repeating = None if lister is None else asyncio.ensure_future(lister())
    await stopped.wait()
    if repeating is not None:
        repeating.cancel()
    await holder.stop()


def search(
    text: Annotated[
        list[str] | None, typer.Argument(help="Words that its card says.", show_default=False)
    ] = None,
    network: options.Network = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List data sets: files that anyone fetches, and vaults that answer questions."""
    from clusterai.cli.datasets import listing, showing

    words = " ".join(text or ())
    rows, false = listing.at_gateway(data, lambda vaults: listing.search(vaults, words), network)
    for failure in false:
        say.complain("\n".join(failure.lines()))
    if json:
        say.emit({"data": rows})
        return
    say.table(
        ("id", "name", "title", "what", "#MB", "licence"),
        (
            (
                it.dataset,
                it.name,
                showing.plain(it.title, 40),
                it.kind,
                f"{it.bytes / 1e6:.1f}",
                showing.plain(it.licence, 20),
            )
            for it in rows
        ),
    )


def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME|ID|URL|DIR",
            help="A data set's name, owner or id, as in `data search`; a holder's URL; or a published folder.",
            show_default=False,
        ),
    ],
    network: options.Network = None,
    identity: IdentityFile = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Print a data set's card."""
    from clusterai.cli.datasets import fetching, showing

    if "://" in what:
        card = fetching.card_at(what)
    elif _is_folder(what):
        card = fetching.card_at(Path(what).absolute().as_uri())
    else:
        card = _listed(what, identity, network, data).card
    if json:
        say.emit(card)
    else:
        showing.card(card)


def mock(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME|ID", help="A vault's name, owner or id, as in `data search`.", show_default=False
        ),
    ],
    rows: Annotated[int, typer.Option(min=1, max=1_000_000)] = 100,
    seed: Annotated[int, typer.Option(help="The same seed, the same rows.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write here. Default: stdout.", show_default=False)
    ] = None,
    network: options.Network = None,
    identity: IdentityFile = None,
    data: options.Data = None,
    quiet: options.Quiet = False,
) -> None:
    """Write rows that look like a vault's, made from its published schema alone: CSV, to write programs against. It costs nothing."""
    from clusterai.cli.datasets import showing
    from clusterai.vault.core.mock import mock_csv

    listed = _listed(what, identity, network, data)
    facts = showing.facts(listed.card)
    if facts is None:
        raise Failure(
            f"{listed.name} is no vault: its files are there for everybody",
            next=f"clusterai data fetch {what} --to DIR",
        )
    found = mock_csv(facts.schema, rows, seed)
    if out is None:
        say.stdout().write(found.decode())
    else:
        out.write_bytes(found)
        say.say(f"{rows} rows in {out}")


def _is_folder(what: str) -> bool:
    """Whether a folder is meant and no name. A vault's own folder mostly lies where its name is typed, and shows nothing."""
    if what in (".", "..") or (Path(what).name != what and not what.startswith("0x")):
        return True
    return (Path(what) / ".clusterai").is_dir()


def _listed(what: str, identity: Path | None, network: Path | None, data: Path | None) -> "Listed":
    """
    Raises:
        Failure: none is listed as that, or several, or the name is another's now.
    """
    from clusterai.cli.datasets import listing
    from clusterai.cli.names import names_at
    from clusterai.cli.vaultreach import listed_as

    names = names_at(identity, data, network)
    return listing.at_gateway(data, lambda vaults: listed_as(vaults, what, names), network)


def _digest(text: str) -> "Digest | None":
    from clusterai.protocol import ids

    try:
        return ids.digest(text)
    except ids.BadId:
        return None


def fetch(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME|ID|ADDRESS|URL",
            help="Its name, owner or id, as in `data search`; its address with --holder; or a holder's URL.",
            show_default=False,
        ),
    ],
    to: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Into this folder; what is there already is kept.", show_default=False
        ),
    ],
    holder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Ask this one too: http(s)://, s3://bucket/prefix, file:///folder. May be repeated.",
            show_default=False,
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Dial holders in private networks too, if a listing names them.")
    ] = False,
    network: options.Network = None,
    identity: IdentityFile = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fetch a data set from all its holders at once. Each piece is checked; run it again to go on after a stop."""
    from clusterai.cli.datasets import fetching, listing, showing
    from clusterai.cli.datasets.remembered import Remembered

    named = tuple(holder or ())
    digest = _digest(what)
    if "://" in what:
        wanted = fetching.Wanted(None, (what, *named), private=private)
    elif named:
        if digest is None:
            raise Failure(
                f"{what!r} is no address", "with --holder its address says what is right", code=Exit.USAGE
            )
        wanted = fetching.Wanted(digest, named, private=private)
    else:
        held = listing.holding(_listed(what, identity, network, data))
        wanted = fetching.Wanted(held.address, told=held.holders, private=private)
    with showing.progress() as begun:
        here = fetching.bring(wanted, to, begun, Remembered.of_this_user())
    if json:
        say.emit(here)
        return
    say.tell(f"{here.to}  {here.address}")
    now = f"of which {here.fetched_bytes / 1e6:.1f} MB came now at {here.mb_per_s} MB/s"
    say.say(
        f"{here.files} files, {here.bytes / 1e6:.1f} MB, {now if here.fetched_bytes else 'all here before'};"
        " every piece was checked"
    )
    for share in here.holders:
        said = (
            "" if share.state == "good" else f", {share.state}: {share.why.removeprefix(share.holder + ': ')}"
        )
        say.say(f"  {share.holder}: {share.bytes / 1e6:.1f} MB{said}")
