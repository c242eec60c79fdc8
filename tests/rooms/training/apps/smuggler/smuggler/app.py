"""A requester's app that tries to carry rows out: by the network, by files, by its reply's size, names and metrics."""

import socket
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

client, server = ClientApp(), ServerApp()


def escaped() -> float:
    """1 for each way out that it found."""
    found = 0.0
    for place in ("/data/kept", "/tmp/../data/kept", "/work/kept", "/root/kept", "/dev/shm/../../kept"):
        try:
            Path(place).write_text("a row")
            found += 1
        except OSError:
            pass
    try:
        socket.create_connection(("127.0.0.1", 22), 0.2)
        found += 1
    except OSError:
        pass
    there = [place.name for place in Path("/dev/shm").iterdir()]
    found += any(name.startswith("clusterai") for name in there)
    return found


@client.train()
def train(message, context):
    print("a row on standard output")
    arrays = ArrayRecord({"model": Array(np.full(3, 1e12))})
    metrics = MetricRecord({"num-examples": 1e12, "escaped": escaped(), "row": 1e300})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@client.evaluate()
def evaluate(message, context):
    metrics = MetricRecord({"num-examples": 1, "escaped": escaped()})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@server.main()
def main(grid, context):
    arrays = ArrayRecord({"model": Array(np.zeros(3))})
    FedAvg().start(grid=grid, initial_arrays=arrays, num_rounds=1)
