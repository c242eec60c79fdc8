"""Flower's SecAgg+ in one process, for `bench/secagg.py`: run by the Python of the peer environment `flower`.

`flower_secagg.py CLIENTS LENGTH SHARES THRESHOLD DROPPED`: Flower's own server workflow and client mod, every message through Flower's
own protobuf both ways; the first DROPPED clients fail when vectors are collected. Prints one line of JSON: seconds of each
client and of the server, bytes each way, and the largest error of the mean.
"""
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

import json
import logging
import sys
import time
from logging import ERROR
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.compat.common import recorddict_compat as compat
from flwr.server import ServerConfig
from flwr.server.client_manager import SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.supercore.task_identity import TaskIdentity

logging.getLogger("flwr").setLevel(ERROR)


class InProcess:
    """What the workflow needs of a Grid: messages carried to the mod at once, one client after the other."""

    def __init__(self, vectors: Any, dropped: int) -> None:
        self.vectors, self.dropped = vectors, dropped
        self.contexts = {i + 1: Context(0, i + 1, {}, RecordDict(), {}) for i in range(len(vectors))}
        self.seconds = dict.fromkeys(self.contexts, 0.0)
        self.sent = self.received = 0
        self.stage = -1

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Any]:
        del timeout
        self.stage += 1
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            # What SuperLink and a run would fill in.
            message.metadata.__dict__["_message_id"] = f"{self.stage}-{node}"
            raw = message_to_proto(message).SerializeToString()
            self.sent += len(raw)
            if self.stage >= 2 and node <= self.dropped:
                replies.append(Message(Error(code=0, reason="gone"), reply_to=message))
                continue
            began = time.process_time()
            proto = message_to_proto(message)
            proto.ParseFromString(raw)
            reply = secaggplus_mod(message_from_proto(proto), self.contexts[node], self.fit)
            back = message_to_proto(reply).SerializeToString()
            self.seconds[node] += time.process_time() - began
            self.received += len(back)
            proto = message_to_proto(reply)
            proto.ParseFromString(back)
            replies.append(message_from_proto(proto))
        return replies

    def fit(self, message: Any, context: Any) -> Any:
        vector = self.vectors[context.node_id - 1]
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([vector]), 1, {})
        return Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)


def main(clients: int, length: int, shares: int, threshold: int, dropped: int) -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 9999, 1
    vectors = np.random.default_rng(1).normal(size=(clients, length)).astype(np.float32)
    grid = InProcess(vectors, dropped)
    manager = SimpleClientManager()
    for node in grid.contexts:
        manager.register(GridClientProxy(node, grid, 0))  # type: ignore[arg-type]
    strategy = FedAvg(
        fraction_fit=1.0, min_fit_clients=clients, min_available_clients=clients,
        initial_parameters=ndarrays_to_parameters([np.zeros(1, np.float32)]),
    )  # fmt: skip
    context = LegacyContext(Context(0, 0, {}, RecordDict(), {}), ServerConfig(1), strategy, manager)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
    context.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(
        ndarrays_to_parameters([np.zeros(1, np.float32)]), True
    )
    workflow = SecAggPlusWorkflow(shares, threshold, max_weight=1.0, quantization_range=2**16)
    began = time.process_time()
    workflow(grid, context)  # type: ignore[arg-type]
    whole = time.process_time() - began
    got = compat.arrayrecord_to_parameters(context.state.array_records[MAIN_PARAMS_RECORD], True)
    from flwr.common import parameters_to_ndarrays

    mean = parameters_to_ndarrays(got)[0]
    true = vectors[dropped:].mean(axis=0)
    seconds = list(grid.seconds.values())
    print(
        json.dumps(
            {
                "client_s": sum(seconds) / clients,
                "server_s": whole - sum(seconds),
                "whole_s": whole,
                "bytes_per_client": (grid.sent + grid.received) / clients,
                "error": float(np.abs(mean - true).max()) if mean.shape == true.shape else None,
            }
        )
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:6]))
