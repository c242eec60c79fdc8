"""Nobody is told what runs here but by the person whose machine it is."""

import importlib

import clusterai


def test_the_engine_tells_its_makers_nothing():
    """OpenVINO's import goes on without its telemetry, which would fork, call out, and end what it forked by a signal that daemons hear."""
    assert clusterai.__doc__
    told = importlib.import_module("openvino.tools.ovc.telemetry_utils")
    assert told.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
