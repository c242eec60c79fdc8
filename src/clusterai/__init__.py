"""ClusterAI: one AI cloud out of machines that belong to people who don't trust each other."""

import sys
from typing import Any, cast

# Its first import on a machine tells OpenVINO's makers of it, without asking. Where the network lets that hang, the forked process that asks
# is ended by SIGTERM; it has our event loop's signal pipe, so a node would hear the signal and drain as soon as it has loaded its model.
cast("dict[str, Any]", sys.modules)["openvino_telemetry"] = None
