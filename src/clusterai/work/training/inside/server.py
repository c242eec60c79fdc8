"""A ServerApp on the requester's machine, whose `Grid` is ours: messages go to vaults, and what comes back are sums.

    server.py FOLDER JSON        JSON: {run, seed, config, strategies, arrays?}

The app is Flower's, unmodified. Frames (`pipe.py`) pass over the standard input and output that the process was started with; what the
app prints goes to standard error. Nothing here decides: which strategies may be used with sums, `strategies` says.

Three things of Flower are wrapped, none changed: `Strategy.start` tells us the strategy's name, its weight's key and its first parameters
(and takes the first run's parameters where a run is resumed), `Strategy.aggregate_train` tells us the model after each round, and
`fit_clients` and `evaluate_clients` of the older API ask all clients at once, so that there is something to sum.
"""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false, reportOptionalCall=false
# Types of Flower's aren't here, where ours are checked.

import json
import os
import random
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

_out = os.fdopen(os.dup(1), "wb")
_in = os.fdopen(os.dup(0), "rb")
os.dup2(2, 1)

import flower  # noqa: E402
import pipe  # noqa: E402
import records  # noqa: E402
from flwr.app import DEFAULT_TTL, Error, Message, RecordDict  # noqa: E402
from flwr.server import server as older  # noqa: E402
from flwr.server.run_serverapp import run as run_app  # noqa: E402
from flwr.serverapp import Grid  # noqa: E402
from flwr.serverapp import strategy as strategies  # noqa: E402
from flwr.supercore.run import Run  # noqa: E402
from flwr.supercore.task_identity import TaskIdentity  # noqa: E402

_turn = threading.RLock()
_evaluate: Any = None
_probing = False


class Refused(RuntimeError):
    """The app asks for something that sums can't give: {why}."""


def ask(head: dict[str, Any], blobs: Iterable[bytes] = ()) -> tuple[dict[str, Any], list[bytes]]:
    """One question, one answer; the app may have threads."""
    if _probing:
        raise Refused("an evaluate_fn that asks vaults can't say what groups are worth")
    with _turn:
        pipe.send(_out, head, list(blobs))
        answer, got = pipe.receive(_in)
        while answer.get("op") == "probe":
            pipe.send(_out, {"op": "worth", "metrics": probed(answer["round"], got)})
            answer, got = pipe.receive(_in)
    if answer.get("op") == "refused":
        raise Refused(answer["why"])
    return answer, got


def probed(server_round: int, blobs: list[bytes]) -> list[dict[str, float]]:
    """What the app's own evaluation says of models that it isn't told the origin of."""
    global _probing
    _probing = True
    try:
        found = [_evaluate(server_round, flower.flowered(records.decode(it))["arrays"]) for it in blobs]
    finally:
        _probing = False
    return [{} if it is None else numbers(dict(it.items())) for it in found]


class VaultGrid(Grid):
    """Flower's Grid over vaults. Messages are pushed at once for all, so that their replies can be summed."""

    def __init__(self, run_id: int) -> None:
        self._run = Run.create_empty(run_id)
        self._pushed: dict[str, Message] = {}
        self._number = 0

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl or DEFAULT_TTL, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        return list(ask({"op": "nodes"})[0]["nodes"])

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Kept until they are pulled: then their replies are there at once."""
        names: list[str] = []
        for message in messages:
            self._number += 1
            names.append(f"m{self._number}")
            message.metadata.__dict__["_message_id"] = names[-1]
            self._pushed[names[-1]] = message
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        wanted = [self._pushed.pop(name) for name in message_ids if name in self._pushed]
        return self._exchanged(wanted, None) if wanted else []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        names = self.push_messages(messages)
        wanted = [self._pushed.pop(name) for name in names]
        return self._exchanged(wanted, timeout) if wanted else []

    def _exchanged(self, messages: list[Message], timeout: float | None) -> list[Message]:
        bodies: dict[bytes, int] = {}
        same: dict[int, int] = {}
        heads: list[dict[str, Any]] = []
        for message in messages:
            content = message.content
            at = same.get(id(content))
            if at is None:
                at = bodies.setdefault(records.encode(flower.plain(content)), len(bodies))
                same[id(content)] = at
            about = message.metadata
            heads.append(
                {
                    "node": about.dst_node_id,
                    "type": about.message_type,
                    "group": about.group_id,
                    "id": about.message_id,
                    "body": at,
                }
            )
        answer, got = ask({"op": "exchange", "timeout_s": timeout, "messages": heads}, bodies)
        contents: list[Any] = [records.decode(blob) for blob in got]
        by_node = {message.metadata.dst_node_id: message for message in messages}
        replies: list[Message] = []
        for reply in answer["replies"]:
            asked = by_node.get(reply["node"])
            if asked is None:
                continue
            if reply["body"] < 0:
                replies.append(Message(Error(code=2, reason=reply["why"]), reply_to=asked))
            else:
                replies.append(Message(flower.flowered(contents[reply["body"]]), reply_to=asked))
        return replies


def names_of(strategy: object) -> list[str]:
    """Of its class and those above it, as Flower's own modules define them; ours to judge."""
    return [
        f"{made.__module__.split('.')[0]}.{made.__name__}"
        + ("" if made.__module__.startswith("flwr.") else "*" * ("aggregate_train" in vars(made)))
        for made in type(strategy).__mro__
        if made is not object
    ]


def wrap_strategies(first: Any) -> None:
    """Tell of every strategy's start, rounds and result."""
    start = strategies.Strategy.start

    def started(self: Any, grid: Any, initial_arrays: Any, *args: Any, **named: Any) -> Any:
        if not isinstance(grid, VaultGrid):
            return start(self, grid, initial_arrays, *args, **named)
        rounds = named.get("num_rounds", args[0] if args else 3)
        arrays = first if first is not None else initial_arrays
        blob = records.encode(flower.plain(RecordDict({"arrays": arrays})))
        weight = getattr(self, "weighted_by_key", "num-examples")
        global _evaluate
        aggregate, evaluate = self.aggregate_train, named.get("evaluate_fn")
        _evaluate = evaluate
        head = {"op": "strategy", "names": names_of(self), "rounds": rounds, "weight": weight}
        ask(head | {"evaluates": evaluate is not None}, [blob])

        def aggregated(server_round: int, replies: Any) -> Any:
            made, metrics = aggregate(server_round, replies)
            told = dict(metrics.items()) if metrics is not None else {}
            blobs = [] if made is None else [records.encode(flower.plain(RecordDict({"arrays": made})))]
            ask({"op": "round", "round": server_round, "metrics": numbers(told)}, blobs)
            return made, metrics

        def evaluated(server_round: int, arrays: Any) -> Any:
            found = evaluate(server_round, arrays)
            if found is not None:
                ask({"op": "evaluated", "round": server_round, "metrics": numbers(dict(found.items()))})
            return found

        self.aggregate_train = aggregated
        if evaluate is not None:
            named["evaluate_fn"] = evaluated
        try:
            return start(self, grid, arrays, *args, **named)
        finally:
            del self.aggregate_train

    strategies.Strategy.start = started


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}


def wrap_older() -> None:
    """`server_fn` apps ask client by client, in threads; here all are asked in one exchange."""
    from flwr import common
    from flwr.compat.common import recorddict_compat as compat

    def asked(instructions: Any, type_: str, spell: Any, read: Any, group_id: int) -> Any:
        grid = instructions[0][0].grid if instructions else None
        if grid is None:
            return [], []
        messages = [
            Message(spell(ins), proxy.node_id, type_, group_id=str(group_id)) for proxy, ins in instructions
        ]
        by_node = {proxy.node_id: proxy for proxy, _ in instructions}
        results: list[Any] = []
        failures: list[Any] = []
        for reply in grid.send_and_receive(messages):
            if reply.has_error():
                failures.append(RuntimeError(reply.error.reason))
            else:
                results.append((by_node[reply.metadata.src_node_id], read(reply.content)))
        return results, failures

    def fit(client_instructions: Any, max_workers: Any, timeout: Any, group_id: int) -> Any:
        return asked(
            client_instructions,
            "train",
            lambda ins: compat.fitins_to_recorddict(ins, keep_input=True),
            lambda content: compat.recorddict_to_fitres(content, keep_input=False),
            group_id,
        )

    def evaluate(client_instructions: Any, max_workers: Any, timeout: Any, group_id: int) -> Any:
        return asked(
            client_instructions,
            "evaluate",
            lambda ins: compat.evaluateins_to_recorddict(ins, keep_input=True),
            compat.recorddict_to_evaluateres,
            group_id,
        )

    start = older.Server.fit

    def fitted(self: Any, num_rounds: int, timeout: Any) -> Any:
        strategy, before = self.strategy, self.strategy.aggregate_fit
        blob = records.encode({})
        ask({"op": "strategy", "names": names_of(strategy), "rounds": num_rounds, "weight": ""}, [blob])

        def aggregated(server_round: int, results: Any, failures: Any) -> Any:
            made, metrics = before(server_round, results, failures)
            blobs: list[bytes] = []
            if made is not None:
                arrays = common.parameters_to_ndarrays(made)
                named: records.Records = {
                    "arrays": ("arrays", {str(at): array for at, array in enumerate(arrays)})
                }
                blobs = [records.encode(named)]
            ask({"op": "round", "round": server_round, "metrics": numbers(metrics)}, blobs)
            return made, metrics

        strategy.aggregate_fit = aggregated
        try:
            return start(self, num_rounds, timeout)
        finally:
            del strategy.aggregate_fit

    older.fit_clients, older.evaluate_clients, older.Server.fit = fit, evaluate, fitted


def main() -> int:
    folder, settings = Path(sys.argv[1]).resolve(), json.loads(sys.argv[2])
    first = None
    if settings.get("arrays"):
        first = flower.flowered(records.decode(Path(settings["arrays"]).read_bytes()))["arrays"]
    random.seed(settings["seed"])
    components, config = flower.configured(folder)
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = settings["run"]
    TaskIdentity.node_id = 1
    wrap_strategies(first)
    wrap_older()
    context = flower.context(settings["run"], 1, {}, RecordDict(), {**config, **settings["config"]})
    try:
        run_app(VaultGrid(settings["run"]), context, str(folder), components["serverapp"])
    except Refused as refusal:
        pipe.send(_out, {"op": "refused", "why": str(refusal)})
        return 3
    pipe.send(_out, {"op": "done"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
