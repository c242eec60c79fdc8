"""One message to a ClientApp, at a vault: in the sandbox, without network, beside data that can't be written.

    in/job.json    {message: {type, group, node, run, id, created}, node, config}
    in/message     the message's records        in/state    the context's state, where there is one
    in/app/…       the app's files              /data       the vault's rows
    out/reply      the reply's records          out/state   the state after it      out/error   instead, one line

An app's own output goes to standard error. What it leaves in `out` is a stranger's, and judged as that.
"""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false, reportOptionalCall=false
# Types of Flower's aren't here, where ours are checked.

import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")


def main() -> int:
    inputs, out = Path(os.environ["CLUSTERAI_IN"]), Path(os.environ["CLUSTERAI_OUT"])
    os.dup2(2, 1)
    import flower
    import records
    from flwr.app import Message, Metadata, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.supercore.object_ref import load_app

    job = json.loads((inputs / "job.json").read_text())
    folder = inputs / "app"
    os.chdir(folder)
    asked = job["message"]
    components, config = flower.configured(folder)
    app = load_app(components["clientapp"], RuntimeError, folder)
    if not isinstance(app, ClientApp):
        raise TypeError(f"{components['clientapp']} is no ClientApp")
    state = RecordDict()
    if (inputs / "state").exists():
        state = flower.flowered(records.decode((inputs / "state").read_bytes()))
    context = flower.context(asked["run"], asked["node"], job["node"], state, {**config, **job["config"]})
    metadata = Metadata(
        run_id=asked["run"],
        message_id=asked["id"],
        src_node_id=1,
        dst_node_id=asked["node"],
        reply_to_message_id="",
        group_id=asked["group"],
        created_at=asked["created"],
        ttl=43_200.0,
        message_type=asked["type"],
    )
    content = flower.flowered(records.decode((inputs / "message").read_bytes()))
    reply = app(Message(metadata=metadata, content=content), context)
    if reply.has_error():
        (out / "error").write_text(str(reply.error.reason)[:2000])
        return 0
    (out / "reply").write_bytes(records.encode(flower.plain(reply.content)))
    (out / "state").write_bytes(records.encode(flower.plain(context.state)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
