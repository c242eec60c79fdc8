"""The rounds, and what comes of them."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits.task import first_model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    result = FedAvg().start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(values) for name, values in first_model().items()}),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )
    names = list(result.arrays.keys())
    np.savez("final_model.npz", **dict(zip(names, result.arrays.to_numpy_ndarrays(), strict=True)))
