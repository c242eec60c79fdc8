"""Between Flower's own classes and our records; imported in Flower's environment only."""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false, reportOptionalCall=false
# Types of Flower's aren't here, where ours are checked.

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import records
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict


def plain(content: Any) -> records.Records:
    """A `RecordDict` as records."""
    found: records.Records = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            found[name] = ("arrays", {key: np.asarray(array.numpy()) for key, array in record.items()})
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            found[name] = (kind, dict(record.items()))
    return found


def flowered(found: records.Records) -> Any:
    """Records as a `RecordDict`."""
    content = RecordDict()
    for name, (kind, items) in found.items():
        if kind == "arrays":
            content[name] = ArrayRecord({key: Array(np.asarray(item)) for key, item in items.items()})
        else:
            content[name] = (MetricRecord if kind == "metrics" else ConfigRecord)(dict(items))
    return content


def configured(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """An app's components and its run configuration, flattened with dots, as `pyproject.toml` says them."""
    app = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    config: dict[str, Any] = {}

    def flatten(table: dict[str, Any], before: str) -> None:
        for key, value in table.items():
            if isinstance(value, dict):
                flatten(value, f"{before}{key}.")
            else:
                config[before + key] = value

    flatten(app.get("config", {}), "")
    return app["components"], config


def context(run_id: int, node_id: int, node: dict[str, Any], state: Any, config: dict[str, Any]) -> Any:
    return Context(run_id=run_id, node_id=node_id, node_config=node, state=state, run_config=config)
