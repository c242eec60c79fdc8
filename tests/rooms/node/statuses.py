"""A node's status to vary."""

import os
from typing import Any

import msgspec

from clusterai.node.adapters.watch import LinkView, ModelView, Status
from tests.rooms.node.stubgateway import NODE


def status(**changes: Any) -> Status:
    plain = Status(
        pid=os.getpid(),
        at_s=0,
        owner="0x" + NODE.hex(),
        hot="0x" + "4d" * 20,
        phase="running",
        chain_block=7,
        chain_trouble="",
        registered=True,
        barred=False,
        running=0,
        receipts=3,
        tokens=40,
        owed_wei=5,
        vouched_wei=6,
        committed_wei=7,
        claimed_wei=8,
        settled_wei=9,
        links=(LinkView("0x" + "47" * 20, "wss://127.0.0.1:1/", True, "", 0.2),),
        models=(ModelView("tiny", "0x00", "ready", 0, 1, 2.5),),
    )
    return msgspec.structs.replace(plain, **changes)
