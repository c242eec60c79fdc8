"""The requester's side of federated training: an app's folder, its grants at each vault, and the way there through a gateway."""

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from clusterai.cli.asking import Standing, found, standings
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.names import Names
from clusterai.cli.vaultreach import Reach
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_ADDRESS, BadId, Digest, address, hex0x
from clusterai.protocol.ids import digest as read_digest
from clusterai.protocol.vaults import dataset_id, subject
from clusterai.sdk.identity import Identity, NotFromVault
from clusterai.sdk.vaults import ApiError, Listed, Untrue
from clusterai.work.training.adapters.packing import bundle_of
from clusterai.work.training.adapters.parties import Lost, Paid
from clusterai.work.training.core import quote
from clusterai.work.training.core.bundle import BadBundle, Bundle
from clusterai.work.training.core.lineage import Source
from clusterai.work.training.spec import Round

KIND_NAME = "training"
ROUND_KEYS = ("num-server-rounds", "num-rounds", "num_rounds", "rounds")
"""How apps call their number of rounds in their configuration; the first is what Flower's own templates have."""

SHOWN_WEI = 1_000
"""`protocol.money.show` shows six of nine places."""


class App(msgspec.Struct, frozen=True):
    """A Flower app.

    Attributes:
        rounds_key: under which its configuration has the number of rounds; empty where it has none that we know.
    """

    folder: Path
    bundle: Bundle
    rounds: int
    rounds_key: str


def app_at(folder: Path) -> App:
    """
    Raises:
        Failure: it is no Flower app.
    """
    try:
        bundle = bundle_of(folder)
        project = tomllib.loads((folder / "pyproject.toml").read_text())
        found = cast("dict[str, Any]", project["tool"]["flwr"]["app"])
        for part in ("serverapp", "clientapp"):
            if not isinstance(found["components"][part], str):
                raise TypeError(f"{part} isn't MODULE:NAME")
    except BadBundle as error:
        raise Failure(f"{folder} can't be sent", str(error), code=Exit.USAGE) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(
            f"{folder} is no Flower app",
            f"its pyproject.toml lacks [tool.flwr.app.components]: {error}",
            "flwr new makes one",
            Exit.USAGE,
        ) from None
    config = cast("dict[str, Any]", found.get("config", {}))
    key = next((it for it in ROUND_KEYS if isinstance(config.get(it), int)), "")
    return App(folder, bundle, int(config[key]) if key else 3, key)


def config_of(app: App, rounds: int | None, given: list[str]) -> tuple[int, dict[str, Any]]:
    """The number of rounds, and what overrides the app's configuration.

    Raises:
        Failure.
    """
    config: dict[str, Any] = {}
    for entry in given:
        name, equals, text = entry.partition("=")
        if not equals or not name:
            raise Failure(f"--run-config {entry}", "it is NAME=VALUE", code=Exit.USAGE)
        try:
            config[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            config[name] = text
    if rounds is not None:
        if not app.rounds_key:
            raise Failure(
                "--rounds",
                f"the app's configuration has none of {', '.join(ROUND_KEYS)}",
                "say it by --run-config NAME=N, and --rounds is only for the noise",
                Exit.USAGE,
            )
        config[app.rounds_key] = rounds
    planned = config.get(app.rounds_key, app.rounds)
    return int(planned), config


def chosen(standings: list[Standing], code: Digest, epsilon: float | None, uses: int, name: str) -> Digest:
    """Of the grants for this app, the one that holds the run and ends first.

    Raises:
        Failure: there is none.
    """
    mine = [it for it in standings if it.operation == KIND_NAME and it.grant and it.state == "granted"]
    fit = [
        it
        for it in mine
        if it.code == hex0x(code)
        and it.uses - it.used >= uses
        and (it.epsilon == 0 if epsilon is None else it.epsilon - it.spent_epsilon >= epsilon - 1e-6)
    ]
    if not fit:
        waiting = [it for it in standings if it.operation == KIND_NAME and it.state in ("asked", "approved")]
        note = next((it.note for it in waiting if it.state == "asked" and it.note), "")
        waits = f"a request waits: {note}" if note else "it waits for its owner"
        why = waits if waiting else "none holds this run"
        raise Failure(
            f"{name} gave no grant for this app",
            f"{len(mine)} grant(s) for training: {why}; {uses} uses and {'no ε' if epsilon is None else f'ε {epsilon:g}'} are needed",
            "clusterai train request",
        )
    best = min(fit, key=lambda it: it.expires_s)
    assert best.grant is not None
    return read_digest(best.grant)


def taken_up(sources: Sequence[Source], wanted: Sequence[str], folder: Path) -> None:
    """A run goes on with exactly the vaults that it began with, whatever their names mean by now.

    Raises:
        Failure: others are named.
    """
    meant = [[it for it in sources if _means(name, it)] for name in wanted]
    if sorted(len(it) for it in meant) != [1] * len(sources) or len({it.dataset for [it] in meant}) != len(
        sources
    ):
        had = ", ".join(f"{it.name} ({hex0x(Digest(it.dataset))})" for it in sources)
        raise Failure(
            f"{folder} holds a run with other vaults than {', '.join(wanted)}",
            f"it began with {had}",
            "name those, or another folder by --out",
            Exit.USAGE,
        )


def _means(wanted: str, source: Source) -> bool:
    who, _, name = wanted.lower().partition("/")
    if not who.startswith("0x"):
        return who == source.name
    try:
        if len(who) > 42:
            return source.dataset == read_digest(who)
        return source.dataset == dataset_id(address(who), name or source.name)
    except BadId:
        return False


def quoted(parties: "Sequence[Remote | Absent]", rounds: int, epsilon: float | None, delta: float) -> int:
    """The most that all rounds can cost, where none fails; up to what is shown of an amount, so that what is shown suffices."""
    prices = [it.prices for it in parties]
    dearest = max((it for it in prices if it is not None), default=(0, 0))
    exact_wei = quote.most_wei([it or dearest for it in prices], rounds, epsilon, delta)
    return -(-exact_wei // SHOWN_WEI) * SHOWN_WEI


async def gathered(
    reach: Reach,
    wanted: Sequence[str],
    names: Names,
    who: Identity,
    sources: Sequence[Source],
    choose: Callable[[list[Standing], str], Digest],
) -> "list[Remote | Absent]":
    """The vaults of a run, each with the grant that it takes part under.

    Args:
        sources: of the run that goes on, by their ids and with the grants that it began with; empty for a new one.
        choose: of the grants there, by the vault's name.

    Raises:
        Failure.
    """
    network = await reach.network()
    parties: list[Remote | Absent] = []
    for source in sources:
        grant = Digest(source.grant)
        try:
            parties.append(Remote(reach, await reach.dataset(Digest(source.dataset)), grant, who))
        except ApiError as error:
            if error.status != 404:
                raise
            parties.append(Absent(source, network))
    for name in () if sources else wanted:
        listed, _ = await found(reach, name, names)
        if any(it.subject == subject(listed.dataset, KIND_NAME) for it in parties):
            raise Failure(f"{name} names a vault that is named already", code=Exit.USAGE)
        grant = choose(await standings(reach, listed, who), listed.name)
        parties.append(Remote(reach, listed, grant, who))
    return parties


class Absent:
    """A vault of a run that goes on, of which nothing is listed now: it has dropped out, until the run is taken up again."""

    prices: tuple[int, int] | None = None

    def __init__(self, source: Source, network: Domain) -> None:
        self.name, self.subject, self.grant = source.name, Digest(source.subject), Digest(source.grant)
        self.signer, self.network = ZERO_ADDRESS, network

    async def call(self, data: bytes) -> bytes:
        raise Lost(f"{self.name} isn't listed now")

    async def order(self, request: Round, most_wei: int | None) -> Paid:
        raise Lost(f"{self.name} isn't listed now")


class Remote:
    """A vault behind a gateway, as `work.training.adapters.parties.Party`."""

    def __init__(self, reach: Reach, listed: Listed, grant: Digest, who: Identity) -> None:
        self.name = listed.name
        self.subject = subject(listed.dataset, KIND_NAME)
        self.grant = grant
        self.signer, self.network = listed.signer, listed.network
        served = next((it for it in listed.serves if it.subject == hex0x(self.subject)), None)
        self.prices = None if served is None else (served.epsilon_price_wei, served.price_wei)
        """Of a thousandth of ε, and of a use; None where nobody serves it now."""
        self._reach, self._listed, self._who = reach, listed, who

    async def call(self, data: bytes) -> bytes:
        try:
            return await self._reach.ask(self._who, self._listed, KIND_NAME, data)
        except (ApiError, NotFromVault, Untrue) as error:
            raise Lost(str(error), getattr(error, "code", "")) from None

    async def order(self, request: Round, most_wei: int | None) -> Paid:
        """Named by its own digest: who asks twice, after a crash say, gets the same answer and pays once."""
        try:
            done = await self._reach.order(
                self.subject, KIND_NAME, request.canonical(), most_wei, key=request.digest.hex()
            )
        except ApiError as error:
            raise Lost(str(error), error.code) from None
        receipt = None if done.receipt is None else msgspec.to_builtins(done.receipt)
        return Paid(done.answer, done.charged_wei, receipt, done.provider)
