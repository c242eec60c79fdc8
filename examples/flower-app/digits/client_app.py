"""What each node does with its own rows."""

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits.task import fit, load_rows, measure

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    names = list(message.content["arrays"].keys())
    model = dict(zip(names, message.content["arrays"].to_numpy_ndarrays(), strict=True))
    pixels, digit = load_rows(context)
    trained = fit(
        model,
        pixels,
        digit,
        int(context.run_config["local-epochs"]),
        float(context.run_config["learning-rate"]),
    )
    metrics = {"train-loss": measure(trained, pixels, digit)["loss"], "num-examples": len(digit)}
    arrays = ArrayRecord({name: Array(values) for name, values in trained.items()})
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    names = list(message.content["arrays"].keys())
    model = dict(zip(names, message.content["arrays"].to_numpy_ndarrays(), strict=True))
    pixels, digit = load_rows(context)
    metrics = {**measure(model, pixels, digit), "num-examples": len(digit)}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
