"""`clusterai models`, `clusterai model add FILE`: the models on this machine and those that the network serves."""

from pathlib import Path
from typing import Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.runtime.adapters.config import default_models


def join(app: typer.Typer) -> None:
    app.command(name="models")(models)
    group = typer.Typer(help="Add models to this machine, and look at their cards.", no_args_is_help=True)
    group.command()(add)
    group.command()(show)
    app.add_typer(group, name="model")


def models(json: options.Json = False, quiet: options.Quiet = False) -> None:
    """List the models on this machine."""
    from clusterai.models import ModelStore
    from clusterai.models.store import BUILT_IN

    store = ModelStore(default_models())
    cards = {model.card.name: model.card for model in store.all()}
    missing = [name for name in BUILT_IN if name not in cards]
    if json:
        say.emit({"models": list(cards.values()), "packages": missing})
        return
    rows = [
        (
            card.name,
            card.kind,
            card.licence,
            card.context or "-",
            "yes" if card.calibration or card.kind == "sealed" else "no",
            card.model[:18] + "…",
        )
        for card in cards.values()
    ]
    rows += [(name, "-", "-", "-", "-", "in its package; added when first used") for name in missing]
    say.table(("name", "kind", "licence", "#context", "auditable", "address"), rows)


def add(
    file: Annotated[
        Path,
        typer.Argument(
            help="A GGUF file, or a folder with shape.json and weights.json for encrypted inputs. It stays where it is.",
            show_default=False,
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name to serve it under; default: from the file.")] = None,
    licence: Annotated[str | None, typer.Option(help="SPDX name; default: what the file says.")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    dry_run: options.DryRun = False,
) -> None:
    """Add a model. Serve it with `clusterai up --model NAME`."""
    from clusterai.models import ModelStore, UnknownTokenizer
    from clusterai.models.core.gguf import BadGguf

    if file.expanduser().is_dir():
        _add_sealed(file.expanduser(), name, licence, json, dry_run)
        return
    if not file.expanduser().is_file():
        raise Failure(f"{file} is no file", next="give the path of a .gguf file", code=Exit.NOT_FOUND)
    if dry_run:
        say.say(
            f"would hash {file} ({file.expanduser().stat().st_size / 1e6:.0f} MB) and add it to {default_models()}"
        )
        return
    say.say(f"hashing {file}…")
    try:
        model = ModelStore(default_models()).add_gguf(file, name, licence)
    except (BadGguf, UnknownTokenizer, ValueError) as error:
        raise Failure(f"{file} can't be served", str(error), "try another GGUF of the model") from None
    if json:
        say.emit(model.card)
    else:
        say.tell(f"{model.card.name}  {model.card.model}")
        say.say(f"serve it: clusterai up --model {model.card.name}")
        if model.card.calibration is None:
            say.say("it has no calibration yet: its answers are paid but not audited, and are labelled so")


def _add_sealed(folder: Path, name: str | None, licence: str | None, json: bool, dry_run: bool) -> None:
    from clusterai.models import ModelStore
    from clusterai.work.sealed.core.model import BadModel, read_shape, read_weights

    try:
        shape = read_shape((folder / "shape.json").read_bytes())
        read_weights((folder / "weights.json").read_bytes(), shape)
    except OSError as error:
        raise Failure(
            f"{folder} holds no model for encrypted inputs",
            f"{error.filename} can't be read: {error.strerror}",
            "give a .gguf file, or a folder with shape.json and weights.json",
            Exit.NOT_FOUND,
        ) from None
    except BadModel as error:
        raise Failure(f"{folder} can't be served", str(error)) from None
    if dry_run:
        say.say(f"would hash {folder} and add it to {default_models()}")
        return
    store = ModelStore(default_models())
    model = store.add_sealed(folder, name, licence, inputs=shape.layout().inputs)
    if json:
        say.emit(model.card)
        return
    say.tell(f"{model.card.name}  {model.card.model}")
    say.say(
        f"serve it: clusterai up --model {model.card.name}; ask it: clusterai infer --encrypted --model {model.card.name} FILE"
    )


def show(
    name: Annotated[str, typer.Argument(help="Name or address.", show_default=False)],
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Print a model's card."""
    from clusterai.models import ModelStore, NoSuchModel

    try:
        model = ModelStore(default_models()).get(name)
    except NoSuchModel as error:
        raise Failure(str(error), code=Exit.NOT_FOUND) from None
    card = model.card
    if json:
        say.emit(card)
        return
    say.pairs(
        [
            ("name", card.name),
            ("address", card.model),
            ("licence", card.licence),
            ("architecture", card.architecture),
            ("context", f"{card.context} tokens"),
            ("price", f"{card.input_wei} in, {card.output_wei} out (smallest units per token, suggested)"),
            ("audit", _audit(card.calibration)),
            *(("file", path) for path in model.paths.values()),
        ]
    )


def _audit(calibration: object) -> str:
    from clusterai.models import Calibration

    if not isinstance(calibration, Calibration):
        return "not calibrated: answers can't be audited"
    return f"calibrated on {calibration.honest_tokens} tokens ({calibration.source})"
