"""What each hospital does with its own rows: DP-SGD, whose ε over all rounds it tells with each reply."""

from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from opacus import PrivacyEngine
from torch.utils.data import DataLoader, TensorDataset

from clinic.task import Net, load_rows, measure

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    config = context.run_config
    features, labels = load_rows(Path(str(context.node_config["data-path"])))
    model = Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    engine = PrivacyEngine(accountant="rdp")
    if "privacy" in context.state:
        # What earlier rounds spent counts too.
        kept = context.state["privacy"]
        engine.accountant.history = list(zip(kept["noise"], kept["rate"], kept["steps"], strict=True))
    private, optimizer, batches = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=float(config["learning-rate"])),
        data_loader=DataLoader(TensorDataset(features, labels), batch_size=int(config["batch-size"])),
        noise_multiplier=float(config["noise-multiplier"]),
        max_grad_norm=float(config["max-grad-norm"]),
    )
    private.train()
    for _ in range(int(config["local-epochs"])):
        for inputs, wanted in batches:
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(private(inputs), wanted).backward()
            optimizer.step()
    noise, rate, steps = zip(*engine.accountant.history, strict=True)
    context.state["privacy"] = MetricRecord({"noise": list(noise), "rate": list(rate), "steps": list(steps)})
    metrics = MetricRecord(
        {"num-examples": len(labels), "epsilon-of-the-app": engine.get_epsilon(float(config["delta"]))}
    )
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    features, labels = load_rows(Path(str(context.node_config["data-path"])))
    model = Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    metrics = MetricRecord({**measure(model, features, labels), "num-examples": len(labels)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
