"""An app of Flower's older kind: `client_fn` and `server_fn`. Its model is the mean of the rows' labels."""

from pathlib import Path

import numpy as np
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import Context, ndarrays_to_parameters
from flwr.compat.server import ServerAppComponents
from flwr.server import ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp


class Labels(NumPyClient):
    def __init__(self, folder: Path) -> None:
        self.digit = np.loadtxt(folder / "data.csv", delimiter=",", skiprows=1, ndmin=1)

    def fit(self, parameters, config):
        return [np.array([self.digit.mean()])], len(self.digit), {"seen": float(len(self.digit))}

    def evaluate(self, parameters, config):
        return float(abs(parameters[0][0] - self.digit.mean())), len(self.digit), {"accuracy": 1.0}


def client_fn(context: Context):
    return Labels(Path(str(context.node_config["data-path"]))).to_client()


def server_fn(context: Context):
    strategy = FedAvg(initial_parameters=ndarrays_to_parameters([np.zeros(1)]))
    config = ServerConfig(num_rounds=int(context.run_config["num-server-rounds"]))
    return ServerAppComponents(strategy=strategy, config=config)


client = ClientApp(client_fn=client_fn)
server = ServerApp(server_fn=server_fn)
