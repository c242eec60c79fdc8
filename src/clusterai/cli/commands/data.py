"""`clusterai data …`: publish a folder as a data set, hold one for others, fetch one from several holders at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.commands import access
from clusterai.cli.failure import Exit, Failure

if TYPE_CHECKING:
    from clusterai.content import Holder

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder with the files.", show_default=False)]


def join(app: typer.Typer) -> None:
    group = typer.Typer(help="Data sets: publish, hold, find and fetch them.", no_args_is_help=True)
    group.command()(publish)
    group.command()(hold)
    group.command()(show)
    group.command()(fetch)
    group.command()(access.request)
    group.command()(access.grants)
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
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Hash a folder and describe it: manifest, Croissant card and README come into DIR/.clusterai."""
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
    _, _, done = publishing.describe(folder, wish)
    if json:
        say.emit(done)
        return
    say.tell(f"{done.name}  {done.address}")
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
    asyncio.run(_held(holder, host.strip("[]"), int(port), certificate, certificate_key))
    say.say(f"sent {holder.bytes_sent / 1e6:.1f} MB")


async def _held(holder: "Holder", host: str, port: int, certificate: Path | None, key: Path | None) -> None:
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
    await stopped.wait()
    await holder.stop()


def show(
    what: Annotated[str, typer.Argument(metavar="URL", help="A holder's URL, or DIR.", show_default=False)],
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Print a data set's card."""
    from clusterai.cli.datasets import fetching, showing

    url = Path(what).absolute().as_uri() if "://" not in what else what
    card = fetching.card_at(url)
    if json:
        say.emit(card)
    else:
        showing.card(card)


def fetch(
    what: Annotated[
        str,
        typer.Argument(metavar="ADDRESS|URL", help="Its address, or a holder's URL.", show_default=False),
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
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fetch a data set from all its holders at once. Each piece is checked; run it again to go on after a stop."""
    from clusterai.cli.datasets import fetching, showing
    from clusterai.cli.datasets.remembered import Remembered
    from clusterai.protocol import ids

    named = tuple(holder or ())
    if "://" in what:
        wanted = fetching.Wanted(None, (what, *named), private=private)
    else:
        try:
            address = ids.digest(what)
        except ids.BadId as error:
            raise Failure(
                str(error), next="give its 0x address, or a holder's URL", code=Exit.USAGE
            ) from None
        wanted = fetching.Wanted(address, named, private=private)
    with showing.progress() as begun:
        here = fetching.bring(wanted, to, begun, Remembered.of_this_user())
    if json:
        say.emit(here)
        return
    say.tell(f"{here.to}  {here.address}")
    say.say(
        f"{here.files} files, {here.bytes / 1e6:.1f} MB, of which {here.fetched_bytes / 1e6:.1f} MB came now"
        f" at {here.mb_per_s} MB/s; every piece was checked"
    )
    for share in here.holders:
        said = "" if share.state == "good" else f", {share.state}: {share.why}"
        say.say(f"  {share.holder}: {share.bytes / 1e6:.1f} MB{said}")
