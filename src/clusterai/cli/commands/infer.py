"""`clusterai infer --encrypted`: a model's answer to inputs that its provider never sees."""

from pathlib import Path
from typing import Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure


def join(app: typer.Typer) -> None:
    app.command()(infer)


def infer(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Inputs: .json, .csv (with names, or in order) or .npy.", show_default=False
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="A model for sealed inputs; see `clusterai models`.", show_default=False
        ),
    ],
    encrypted: Annotated[
        bool, typer.Option("--encrypted", help="Encrypt inputs here; the provider computes on ciphertexts.")
    ] = False,
    max_price: Annotated[
        str | None,
        typer.Option(metavar="TOKENS", help="At most so much for all inputs.", show_default=False),
    ] = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask a small model about inputs that its provider never sees."""
    from clusterai.cli import inferring
    from clusterai.cli.reach import gateway
    from clusterai.protocol import money

    if not encrypted:
        raise Failure(
            "this would send inputs in the clear, and no model here reads such",
            next=f"clusterai infer --encrypted --model {model} {file}",
            code=Exit.USAGE,
        )
    try:
        most_wei = None if max_price is None else money.parse(max_price)
    except ValueError as error:
        raise Failure(f"--max-price {max_price}", str(error), code=Exit.USAGE) from None
    with gateway(data) as client:
        found = inferring.infer(client, model, file, most_wei)
    if json:
        say.emit(found)
        return
    for answer, row in zip(found.answers, found.values, strict=True):
        say.tell(f"{answer}  ({max(row):.4f})" if len(row) > 1 else f"{answer}  ({row[0]:.4f})")
    say.say(
        f"{found.requests} requests, {found.sent_bytes / 1e3:.0f} kB sent and {found.received_bytes / 1e3:.0f} kB received,"
        f" all encrypted; {money.show(found.charged_wei)} paid"
    )
    if found.error is not None:
        say.say(f"largest difference from the model in the clear: {found.error:.1e}")
