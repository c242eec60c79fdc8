"""Which gateway commands speak to, where a network's processes listen, and what others are told."""

from pathlib import Path

import msgspec
import pytest

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.local.folder import DataFolder
from clusterai.cli.local.people import make_people
from clusterai.cli.local.ports import HOST, Ports, check
from clusterai.cli.local.services import chain, gateway, write_node
from clusterai.cli.reach import found, is_readable
from clusterai.cli.reach import gateway as gateway_at
from clusterai.gateway.config import Config
from clusterai.sdk import Unreachable
from tests.ports import free_port


@pytest.mark.parametrize(
    ("url", "readable"),
    [
        ("http://127.0.0.1:8080", False),
        ("http://localhost:8080/v1", False),
        ("http://[::1]:8080", False),
        ("https://gateway.example", False),
        ("http://gateway.example", True),
        ("http://10.77.0.1:8080/v1", True),
        ("http://localhost.example", True),
    ],
)
def test_a_key_sent_in_the_clear_is_known(url: str, readable: bool):
    """Plain HTTP is for one's own machine."""
    assert is_readable(url) is readable


def test_the_key_is_warned_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Who sends a key by plain HTTP to another machine is told at each command; without a key there is nothing to tell."""
    monkeypatch.delenv("CLUSTERAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://10.77.0.1:8080/v1")
    monkeypatch.setenv("CLUSTERAI_DATA", "/nowhere")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-clusterai-k")
    assert found(Path("/nowhere")) == ("http://10.77.0.1:8080/v1", "sk-clusterai-k")
    assert "unencrypted" in capsys.readouterr().err
    monkeypatch.delenv("OPENAI_API_KEY")
    assert found(Path("/nowhere")) == ("http://10.77.0.1:8080/v1", "")
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "why", "cure"),
    [
        ("http://127.0.0.1:1", "refused", "clusterai status"),
        ("https://gateway.example", "[SSL: CERTIFICATE_VERIFY_FAILED] unable", "SSL_CERT_FILE"),
        ("https://gateway.example", "timed out", "firewall"),
    ],
)
def test_where_nobody_answers_what_to_look_at_is_named(url: str, why: str, cure: str):
    """On one's own machine, at somebody's gateway, at one whose certificate nobody knows."""
    with pytest.raises(Failure, match="no gateway answers") as failed, gateway_at(None, url=url):
        raise Unreachable(url, why)
    assert cure in failed.value.next


def test_a_folder_that_is_named_on_the_line_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`--data` of no network isn't taken for another network's gateway, and what else there is, is named."""
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example")
    monkeypatch.setenv("CLUSTERAI_DATA", "/nowhere")
    with pytest.raises(Failure, match="no network runs") as refused:
        found(tmp_path)
    assert refused.value.code is Exit.NOT_RUNNING
    assert "OPENAI_BASE_URL" in refused.value.next


@pytest.mark.parametrize(
    ("host", "listens", "link"), [(HOST, HOST, ""), ("10.77.0.1", "0.0.0.0", "wss://10.77.0.1:8081")]
)
def test_a_network_is_open_to_others_when_it_is_told_so(
    host: str, listens: str, link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without --host nothing listens but on loopback; with it the gateway tells nodes, and renters' relays, that address."""
    monkeypatch.chdir(tmp_path)
    folder, ports = DataFolder(tmp_path / "net"), Ports.beside(8080, host=host)
    people = make_people(folder, 1, 1)
    config = msgspec.json.decode(
        Path(gateway(folder, ports, people, "tiny").arguments[1]).read_bytes(),
        type=Config,
        dec_hook=lambda kind, it: kind(it),
    )
    assert (config.host, config.link_host, config.link_url) == (listens, listens, link)
    started = chain(folder, ports, people, 150).arguments
    assert started[started.index("--host") + 1] == listens
    assert ports.chain_url == f"http://{host}:8082"
    assert Ports.of(ports.api_url) == ports
    assert ports.again == ("up" if host == HOST else f"up --host {host} --port 8080")
    # Its own nodes need nobody's way back in.
    assert (
        f"wss://{HOST}:8081"
        in write_node(folder, ports, people, people.nodes[0], "tiny", None, False, ()).read_text()
    )


def test_a_name_that_is_loopback_here_is_refused():
    """Others would be told to call themselves."""
    with pytest.raises(Failure, match="other machines don't reach this one") as refused:
        check(Ports.beside(free_port(4), host="localhost"), "/data")
    assert "loopback" in refused.value.why
