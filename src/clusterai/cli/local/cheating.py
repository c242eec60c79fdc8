"""The demonstration: one provider of the local network serves altered weights, and the network does the rest.

    choose ─ alter ─ restart ─ requests ─┬─ receipts are signed and paid
                                         ├─ the epoch's root is committed, the beacon draws some
                                         ├─ the validator draws their tokens again, and votes
                                         └─ convicted: stake slashed, pay forfeited, requester refunded

Everything that is told was read from the gateway's event feed, which is the chain's. Nothing here tells the
validator whom to look at.
"""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Generator

import msgspec

from clusterai.cli import say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.local import bootstrap, services
from clusterai.cli.local.folder import CHEAT, Cheat, DataFolder, ServiceState, UpState, write_atomically
from clusterai.cli.local.people import People, make_people
from clusterai.cli.local.ports import Ports
from clusterai.cli.local.progress import Progress
from clusterai.cli.local.wish import WINDOW_S
from clusterai.cli.settings import command
from clusterai.protocol.ids import checksummed
from clusterai.protocol.money import show as money
from clusterai.runtime.adapters.config import default_models
from clusterai.sdk import Client, Event, Node, Unreachable

POLL_S = 0.25
ASKERS = 4
MOST_TOKENS = 48
RESTART_S = 90.0
ORDER = {"Voted": 0, "Convicted": 1}
PROMPTS = (
    "Tell me a short story about a lighthouse.",
    "Explain how rain forms.",
    "Write a letter to a friend about the sea.",
    "List reasons to learn to cook.",
    "Describe a city at night.",
)


class Plan(msgspec.Struct, frozen=True):
    """Who cheats, and how. `altered` is the name under which the other weights are in the store."""

    node: str
    provider: str
    model: str
    how: str
    altered: str


class Told(msgspec.Struct, frozen=True):
    """One step of the story. `after_s`: since the first request to the cheat."""

    step: str
    after_s: float
    text: str
    detail: dict[str, object]


class Story(msgspec.Struct, frozen=True):
    plan: Plan
    caught: bool
    seconds: float
    slashed_wei: int
    burned_wei: int
    bounty_wei: int
    refunded_wei: int
    requests: int
    steps: tuple[Told, ...]


def choose(folder: DataFolder, wanted: str | None, how: str) -> Plan:
    """
    Raises:
        Failure: no such node, nobody honest is left, or a way to alter weights that there isn't.
    """
    from clusterai.models.alter import WAYS

    state = folder.running()
    if how not in WAYS:
        raise Failure(
            f"weights can't be altered by {how!r}", next=f"--how {' | '.join(WAYS)}", code=Exit.USAGE
        )
    node, provider = honest(folder, state, wanted)
    return Plan(node, provider, state.model, how, f"{state.model}-{how}")


def honest(folder: DataFolder, state: UpState, wanted: str | None) -> tuple[str, str]:
    """A node that may still begin to cheat, the last one where none is wanted, and its owner's address.

    Raises:
        Failure: no such node, or nobody honest is left.
    """
    nodes = [one for one in state.services if one.kind == "node"]
    people = _people(folder, nodes)
    with client_of(folder, state) as client:
        barred = {one.provider for one in client.nodes() if one.barred}
    owners = {one.name: checksummed(one.owner.address) for one in people.nodes}
    left = [name for name, owner in owners.items() if owner not in barred and folder.cheat_of(name) is None]
    if wanted is not None and wanted not in owners:
        raise Failure(
            f"{wanted} is no node of this network", next=f"--node {' | '.join(owners)}", code=Exit.NOT_FOUND
        )
    if not left or (wanted is not None and wanted not in left):
        raise Failure(
            f"{wanted or 'every node'} was already caught",
            "a barred owner stays barred",
            "clusterai demo restore",
        )
    node = wanted or left[-1]
    return node, owners[node]


def run(folder: DataFolder, plan: Plan, deadline_s: float, json: bool) -> int:
    """Carry the plan out and tell the story; the exit code says whether the cheat was caught in time."""
    state = folder.running()
    teller = Teller(json)
    with client_of(folder, state) as client:
        with Progress() as progress:
            progress.show(f"altering the weights of {plan.model} ({plan.how})")
            _alter(plan)
            make_cheat(folder, state, plan.node, Cheat(plan.altered))
            progress.show(f"restarting {plan.node} with them")
            await_state(client, plan.provider, "ready")
        teller.tell("altered", f"{plan.node} serves {plan.altered} and calls it {plan.model}")
        story = _watch(folder, state, client, plan, teller, deadline_s)
    if json:
        say.emit(story)
    else:
        _conclude(folder, story)
    return Exit.OK if story.caught else Exit.UNTRUE


def restore(folder: DataFolder) -> list[str]:
    """Honest weights for cheats, and new identities for those that are barred; returns their names."""
    state = folder.running()
    nodes = [one for one in state.services if one.kind == "node"]
    people = _people(folder, nodes)
    with client_of(folder, state) as client:
        barred = {one.provider for one in client.nodes() if one.barred}
        restored: list[ServiceState] = []
        for service, one in zip(nodes, people.nodes, strict=True):
            is_barred = checksummed(one.owner.address) in barred
            if is_barred:
                _retire(folder, service.name)
            if is_barred or folder.cheat_of(service.name) is not None:
                (folder.of(service.name) / CHEAT).unlink(missing_ok=True)
                restored.append(service)
        if not restored:
            return []
        people = _people(folder, nodes)
        ports = _ports(state)
        asyncio.run(bootstrap.settle_in(folder, ports.chain_url, people, services.key_ring(folder), WINDOW_S))
        for service, one in zip(nodes, people.nodes, strict=True):
            if service in restored:
                services.write_node(folder, ports, people, one, state.model, None)
                _end(folder, service.name)
        with Progress() as progress:
            progress.show("waiting for them to serve")
            for one in people.nodes:
                await_state(client, checksummed(one.owner.address), "ready")
    return [service.name for service in restored]


# --- making a cheat, and undoing it ---


def make_cheat(folder: DataFolder, state: UpState, node: str, cheat: Cheat) -> None:
    """From its next start on, which is now, it cheats."""
    write_atomically(folder.of(node) / CHEAT, msgspec.json.encode(cheat))
    nodes = [one for one in state.services if one.kind == "node"]
    people = _people(folder, nodes)
    one = next(it for it in people.nodes if it.name == node)
    services.write_node(folder, _ports(state), people, one, state.model, cheat)
    _end(folder, node)


def _alter(plan: Plan) -> None:
    """Altered weights and their conversion, made once."""
    from clusterai.models import ModelStore, NoSuchModel
    from clusterai.models.adapters.openvino_convert import openvino_folder
    from clusterai.models.alter import alter_weights
    from clusterai.work.loading import find

    store = ModelStore(default_models())
    try:
        altered = find(store, plan.altered)
        if not altered.manifest.files:
            return
    except NoSuchModel:
        target = default_models() / "altered" / f"{plan.altered}.gguf"
        alter_weights(store.get(plan.model).weights, target, plan.how)
        altered = store.add_gguf(target, plan.altered)
    openvino_folder(store, altered)


def _retire(folder: DataFolder, node: str) -> None:
    """Move a barred node's keys and journal away; nothing of money is ever deleted."""
    number = next(at for at in range(1, 10_000) if not (folder.root / "retired" / f"{node}.{at}").exists())
    retired = folder.root / "retired" / f"{node}.{number}"
    retired.mkdir(parents=True, mode=0o700)
    _end(folder, node)
    for path in (*folder.keys.glob(f"{node}.*.key"), folder.of(node) / services.STATE):
        if path.exists():
            path.rename(retired / path.name)


def _end(folder: DataFolder, name: str) -> None:
    """End a process; its supervisor starts it anew with the configuration that it then finds."""
    before = _service(folder, name)
    if before.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(before.pid, signal.SIGTERM)
    ends_s = time.monotonic() + RESTART_S
    while (now := _service(folder, name)).pid in (before.pid, None) and now.restarts == before.restarts:
        if time.monotonic() > ends_s:
            raise Failure(
                f"{name} didn't restart within {RESTART_S:.0f} s", next=f"read {folder.log_of(name)}"
            )
        time.sleep(POLL_S)


def _service(folder: DataFolder, name: str) -> ServiceState:
    return next(one for one in folder.running().services if one.name == name)


def await_state(client: Client, provider: str, wanted: str) -> Node:
    """Wait until a provider, newly linked, is in a state."""
    ends_s = time.monotonic() + RESTART_S
    while True:
        with contextlib.suppress(Unreachable):
            for node in client.nodes():
                if node.provider == provider and node.state == wanted and node.linked:
                    return node
        if time.monotonic() > ends_s:
            raise Failure(f"{provider} isn't {wanted} after {RESTART_S:.0f} s", next="clusterai status")
        time.sleep(POLL_S)


# --- requests, and what comes of them ---


class Teller:
    """Tells steps as they happen, each once."""

    def __init__(self, json: bool) -> None:
        self._json = json
        self._began_s: float | None = None
        self.steps: list[Told] = []

    def start(self) -> None:
        self._began_s = time.monotonic()

    @property
    def after_s(self) -> float:
        return 0.0 if self._began_s is None else round(time.monotonic() - self._began_s, 1)

    def told(self, step: str) -> bool:
        return any(it.step == step for it in self.steps)

    def tell(self, step: str, text: str, **detail: object) -> None:
        if self.told(step):
            return
        self.steps.append(Told(step, self.after_s, text, detail))
        if not self._json:
            say.tell(f"[dim]{self.after_s:5.1f} s[/]  [bold]{step:<10}[/] {text}")


def _watch(
    folder: DataFolder, state: UpState, client: Client, plan: Plan, teller: Teller, deadline_s: float
) -> Story:
    seq = max((it.seq for it in client.recent()), default=0)
    tally = _Tally(plan.provider.lower())
    teller.start()
    ends_s = time.monotonic() + deadline_s
    with _requests(folder, state, plan) as asked:
        while time.monotonic() < ends_s and not tally.over:
            with contextlib.suppress(Unreachable):
                fresh = client.recent(seq)
                seq = max((it.seq for it in fresh), default=seq)
                # Within a block, events stand as contracts called each other; the story is told from its cause on.
                for event in sorted(
                    fresh, key=lambda it: (it.block is None, it.block or 0, ORDER.get(it.kind, 2))
                ):
                    tally.take(event, teller)
            if tally.barred:
                asked.stop.set()
            time.sleep(POLL_S)
    return Story(
        plan,
        tally.slashed_wei > 0,
        teller.steps[-1].after_s,
        tally.slashed_wei,
        tally.burned_wei,
        tally.bounty_wei,
        tally.refunded_wei,
        asked.answered,
        tuple(teller.steps),
    )


class _Tally:
    """What the event feed says about one provider, in the order of the story."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self.receipts = 0
        self.slashed_wei = 0
        self.burned_wei = 0
        self.bounty_wei = 0
        self.refunded_wei = 0
        self.refunds = 0
        self.barred = False
        self._quiet_since_s: float | None = None

    @property
    def over(self) -> bool:
        """Barred, and the last refund came a moment ago: they come in one block."""
        return self._quiet_since_s is not None and time.monotonic() - self._quiet_since_s > 1.0

    def take(self, event: Event, teller: Teller) -> None:
        detail = event.detail
        who = str(detail.get("provider") or detail.get("owner") or detail.get("receiver") or "").lower()
        if who != self._provider:
            return
        match event.kind:
            case "receipt":
                self.receipts += 1
                teller.tell(
                    "paid", f"its first receipt is signed and paid: {_short(detail['id'])}", id=detail["id"]
                )
            case "EpochCommitted":
                teller.tell(
                    "committed",
                    f"it commits epoch {detail['epoch']} on chain: {detail['count']} receipts, root {_short(detail['root'])}",
                    **detail,
                )
            case "Voted":
                teller.tell(
                    "judged", f"a validator drew receipt {detail['index']} again and votes: fraud", **detail
                )
            case "Convicted":
                teller.tell(
                    "caught",
                    f"convicted for epoch {detail['epoch']}, evidence {_short(detail['evidence'])}",
                    **detail,
                )
            case "Slashed":
                self.slashed_wei, self.burned_wei = int(detail["amount"]), int(detail["burned"])
                self.bounty_wei = int(detail["bounty"])
                teller.tell(
                    "slashed",
                    f"stake gone: {money(self.slashed_wei)}, {money(self.bounty_wei)} to the finder, "
                    f"{money(self.burned_wei)} burned",
                    **detail,
                )
            case "Barred":
                self.barred = True
                teller.tell(
                    "forfeited", "barred for good: all its pay that isn't final goes back to the payers"
                )
            case "refund":
                self.refunded_wei += int(detail["amount_wei"])
                self.refunds += 1
                self._quiet_since_s = time.monotonic()
                teller.tell("refunded", f"the first of your refunds: {money(int(detail['amount_wei']))}")
            case _:
                pass


def _short(name: object) -> str:
    return f"{str(name)[:12]}…"


class _Asked:
    def __init__(self) -> None:
        self.stop = threading.Event()
        self.answered = 0
        self.lock = threading.Lock()


@contextlib.contextmanager
def _requests(folder: DataFolder, state: UpState, plan: Plan) -> Generator[_Asked]:
    """Some ordinary customers of the cheat, until told to stop. Requests name the provider: a demo shouldn't wait for luck."""
    asked = _Asked()
    threads = [
        threading.Thread(target=_ask, args=(folder, state, plan, asked, at), daemon=True)
        for at in range(ASKERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        asked.stop.set()
        for thread in threads:
            thread.join(timeout=30)


def _ask(folder: DataFolder, state: UpState, plan: Plan, asked: _Asked, at: int) -> None:
    import httpx

    headers = {"Authorization": f"Bearer {folder.local_account().key}"}
    with httpx.Client(base_url=state.gateway, headers=headers, timeout=60) as http:
        while not asked.stop.is_set():
            at += 1
            body = {
                "model": plan.model,
                "messages": [{"role": "user", "content": PROMPTS[at % len(PROMPTS)]}],
                "max_tokens": MOST_TOKENS,
                "provider": {"only": [plan.provider], "allow_fallbacks": False},
            }
            with contextlib.suppress(httpx.HTTPError):
                if http.post("/v1/chat/completions", json=body).is_success:
                    with asked.lock:
                        asked.answered += 1
                    continue
            # Refused: it is barred, or not linked yet.
            asked.stop.wait(0.5)


def _conclude(folder: DataFolder, story: Story) -> None:
    data = folder.root
    if not story.caught:
        say.say(f"\nnot caught within {story.seconds:.0f} s; look at:  {command('audit list', data)}")
        return
    say.tell(
        f"\n[bold green]caught in {story.seconds:.0f} s[/] after {story.requests} answers. It lost "
        f"{money(story.slashed_wei)}; you got {money(story.refunded_wei)} back."
    )
    say.say(f"see what you paid and got back:  {command('receipt list', data)}")
    say.say(f"let the node start over:         {command('demo restore', data)}")


# --- the folder ---


def _people(folder: DataFolder, nodes: list[ServiceState]) -> People:
    return make_people(folder, len(nodes))


def _ports(state: UpState) -> Ports:
    return Ports.of(state.gateway)


def client_of(folder: DataFolder, state: UpState) -> Client:
    return Client(state.gateway, folder.local_account().key)
