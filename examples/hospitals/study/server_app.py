"""The rounds."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()
FEATURES = 10


@app.main()
def main(grid: Grid, context: Context) -> None:
    FedAvg().start(
        grid=grid,
        initial_arrays=ArrayRecord({"model": Array(np.zeros(FEATURES + 1))}),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )
