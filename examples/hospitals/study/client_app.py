"""What each hospital does with its own rows."""

from pathlib import Path

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from study.task import fit, load_rows, measure

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    features, labels = load_rows(Path(str(context.node_config["data-path"])))
    model = message.content["arrays"]["model"].numpy()
    steps, rate = int(context.run_config["local-steps"]), float(context.run_config["learning-rate"])
    trained = fit(model, features, labels, steps, rate)
    arrays = ArrayRecord({"model": Array(trained)})
    metrics = MetricRecord({"num-examples": len(labels)})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    features, labels = load_rows(Path(str(context.node_config["data-path"])))
    found = measure(message.content["arrays"]["model"].numpy(), features, labels)
    metrics = MetricRecord({**found, "num-examples": len(labels)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
