"""`clusterai rent` against a real gateway, with machines played on real links: from plan to running, to given back, and each refusal."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.main import run
from clusterai.cli.renting.wait import EndedFirst
from clusterai.mesh.adapters.kernel import Netlink
from clusterai.protocol.rentals import StayTold
from clusterai.sdk import Client
from clusterai.sdk.offers import Offers
from clusterai.sdk.rentals import Rentals
from clusterai.work.cluster.spec import decode_spec
from tests.rooms.gateway.bed import TOKEN
from tests.rooms.renting.rented import LOG, RentBed, Tempers


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RentBed]:
    it = RentBed(tmp_path_factory.mktemp("rent"), machines=3)
    with it:
        yield it


@pytest.fixture
def bed(shared: RentBed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RentBed]:
    """All machines stand on offer; what a test rented is given back behind it."""
    monkeypatch.setenv("CLUSTERAI_BASE_URL", shared.url)
    monkeypatch.setenv("OPENAI_API_KEY", shared.key)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("CLUSTERAI_DATA", raising=False)
    shared.offer_all()
    yield shared
    with Client(shared.url, shared.key) as client:
        for it in Rentals(client).list():
            if it.state != "ended":
                Rentals(client).release(it.id)
    shared.until(lambda: shared.standing() == len(shared.people), "machines given back")


@pytest.fixture
def rentals(bed: RentBed) -> Iterator[Rentals]:
    with Client(bed.url, bed.key) as client:
        yield Rentals(client)


Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(bed: RentBed, capsys: pytest.CaptureFixture[str]) -> Told:
    """(exit code, stdout, stderr) of a command."""

    def do(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(list(words))
        said = capsys.readouterr()
        return code, said.out, said.err

    return do


def rented(cli: Told, *words: str) -> Any:
    code, out, err = cli("rent", "--yes", "--json", "--no-mesh", *words)
    assert code == Exit.OK, err
    return json.loads(out)


def files(tmp_path: Path, name: str) -> list[Path]:
    return list(tmp_path.glob(f"clusterai/local/rentals/*/{name}"))


def test_two_machines_from_plan_to_given_back(cli: Told, bed: RentBed, tmp_path: Path):
    """Each step is told; the addresses and the token's file are printed as a shell reads them; giving back ends it everywhere."""
    code, out, err = cli("rent", "--nodes", "2", "--hours", "2", "--yes", "--no-mesh")
    assert code == Exit.OK, err
    assert "2 machines for 2 h: 3 CLAI an hour, 6 CLAI" in out
    head = re.search(r"export RAY_ADDRESS=http://(100\.\d+\.\d+\.1):8265", out)
    assert head
    assert "export RAY_AUTH_MODE=token" in out
    assert f'ray.init("ray://{head[1]}:10001")' in err
    for step in ("is asked", "is ready (mesh 7 ms, ray 900 ms)"):
        assert err.count(step) == 2, err
    (token,) = files(tmp_path, "token")
    assert f"export RAY_AUTH_TOKEN_PATH={token}" in out
    assert token.stat().st_mode & 0o777 == 0o600
    assert bed.machine(0).joined[-1].token.hex() == token.read_text()

    code, out, err = cli("rent", "list")
    assert code == Exit.OK
    (row,) = out.splitlines()[1:]
    name = row.split()[0]
    assert row.split()[1:3] == ["running", "2"]

    code, out, err = cli("rent", "release", name, "--yes")
    assert code == Exit.OK
    assert "released" in out
    assert files(tmp_path, "token") == []
    lease = bytes(bed.machine(1).opened[-1].lease)
    bed.until(
        lambda: all(any(it.lease == lease for it in bed.machine(at).ended) for at in (0, 1)),
        "its end at the machines",
    )
    assert "nothing is rented" in cli("rent", "list")[1]
    assert "released" in cli("rent", "list", "--all")[1]
    code, out, _ = cli("rent", "show", name)
    assert "released by you" in out


@pytest.mark.parametrize(("failure", "keys"), [(EndedFirst, 0), (Failure, 1)])
def test_what_never_came_up_leaves_no_key_here(
    cli: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[Failure], keys: int
):
    """Its token and its end of the mesh are of no use to anybody, nor is a folder with them; of one that only takes too long they are."""

    def ended(*_: object) -> None:
        raise failure("rental didn't come up")

    monkeypatch.setattr("clusterai.cli.renting.wait.until_running", ended)
    code, _, err = cli("rent", "--yes", "--no-mesh")
    assert (code, "is booked" in err, "didn't come up" in err) == (Exit.FAILED, True, True)
    assert len(files(tmp_path, "token")) == keys


def test_a_dry_run_holds_and_books_nothing(cli: Told, bed: RentBed):
    """The plan and its price, with what each wish costs."""
    code, out, _ = cli("rent", "--dry-run", "--region", "eu", "--hours", "90m")
    assert code == Exit.OK
    assert "1 CLAI an hour, 1.5 CLAI if every interval is paid" in out
    assert "costs nothing: " in out
    assert bed.standing() == 3
    told = json.loads(cli("rent", "--dry-run", "--json")[1])
    assert (told["placed"], told["plan"]["hold"], told["plan"]["price_wei"]) == (True, "", TOKEN)


def test_no_is_no(cli: Told, bed: RentBed, monkeypatch: pytest.MonkeyPatch):
    """Who doesn't want the plan that was shown holds nothing any more."""

    def refuse(question: str, yes: bool) -> None:
        assert question == "Rent them, for at most 1 CLAI?"
        raise typer.Abort

    monkeypatch.setattr("clusterai.cli.options.confirm", refuse)
    assert cli("rent", "--no-mesh")[0] == Exit.INTERRUPTED
    assert bed.standing() == 3


def test_what_can_not_be_placed_names_the_wish_and_the_cheapest_way_out(cli: Told):
    """Exit code 1, with numbers that were tried."""
    code, out, err = cli("rent", "--nodes", "2", "--max-price", "2", "--yes", "--no-mesh")
    assert (code, out) == (Exit.FAILED, "")
    assert "price: giving up one of these is enough" in err
    assert "1 CLAI more an hour" in err
    code, out, _ = cli("rent", "--nodes", "2", "--max-price", "2", "--yes", "--json", "--no-mesh")
    assert (code, json.loads(out)["why"]["failing"]) == (Exit.FAILED, ["price"])


def test_a_machine_that_refuses_is_replaced_and_told(cli: Told, bed: RentBed):
    """Another of the same wish takes its place at no higher price; its refusal is told, without what would steer a terminal."""
    bed.offer(1, price_wei=TOKEN)
    bed.until(lambda: _prices(bed).count(TOKEN) == 2, "a second machine at that price")
    bed.machine(0).tempers = bed.machine(1).tempers = Tempers(refuses="taken")
    code, out, err = cli("rent", "--yes", "--json", "--no-mesh")
    assert code == Exit.OK
    (machine,) = json.loads(out)["rental"]["machines"]
    assert (machine["generation"], machine["phase"]) == (1, "ready")
    assert "refused: place 0: taken: as [told]" in err


def _prices(bed: RentBed) -> list[int]:
    return [it["price_wei"]["value"] for it in bed.get("/v1/clusterai/offers")["offers"]]


def test_show_tells_each_machine(cli: Told):
    """Places, phases, prices, how its time is proven, and how it is reached."""
    it = rented(cli, "--nodes", "2", "--cpu", "2", "--mem", "4G", "--disk", "1G", "--env", "A=b=c")
    assert it["rental"]["setup"] == {
        "image": "ray-2.60.0", "cpu_milli": 2_000, "memory_bytes": 4 << 30, "disk_bytes": 1 << 30, "gpus": 0, "env": {"A": "b=c"},
    }  # fmt: skip
    assert it["ray"]["jobs"] == f"http://{it['rental']['head']}:8265"
    code, out, _ = cli("rent", "show", it["rental"]["id"][:8])
    assert code == Exit.OK
    assert "2 cores, 4 GiB of memory, 1 GiB of disk, ray-2.60.0" in out
    assert len(re.findall(r"^\s+[01]\s+0x\w{10}\s+ready", out, re.MULTILINE)) == 2
    assert "not connected from here: clusterai rent connect" in out
    told = json.loads(cli("rent", "show", it["rental"]["id"], "--json")[1])
    assert told["state"] == "running"
    assert [machine["phase"] for machine in told["machines"]] == ["ready", "ready"]


def test_more_time_at_the_same_price(cli: Told, rentals: Rentals):
    """As long again; what it costs is said; beyond what the account has is refused."""
    it = rented(cli)["rental"]
    assert cli("rent", "extend", it["id"], "--hours", "2", "--yes")[0] == Exit.OK
    assert rentals.show(it["id"]).until_s == it["until_s"] + 7_200
    code, _, err = cli("rent", "extend", it["id"], "--hours", "20d", "--yes")
    assert (code, "insufficient_quota" in err) == (Exit.FAILED, True)
    assert cli("rent", "extend", it["id"], "--hours", "31d", "--yes")[0] == Exit.USAGE


def test_more_time_than_the_owner_allows_is_refused_with_what_can_be_had(
    cli: Told, bed: RentBed, rentals: Rentals
):
    """Before the question and before anything is asked of the gateway: how much, and the command for it."""
    bed.offer(0, longest_s=7_200)
    bed.until(lambda: 7_200 in (it["longest_s"]["value"] for it in bed.get("/v1/clusterai/offers")["offers"]), "a new offer")  # fmt: skip
    it = rented(cli)["rental"]
    assert "more can be booked now" in cli("rent", "show", it["id"])[1]
    code, _, err = cli("rent", "extend", it["id"], "--hours", "2")
    assert code == Exit.USAGE
    assert "more can be booked now, not 2 h" in err
    cure = re.search(r"clusterai (rent extend \w+ --hours (\d+)m)", err)
    assert cure
    assert int(cure[2]) >= 60
    assert cli(*cure[1].split(), "--yes")[0] == Exit.OK
    assert rentals.show(it["id"]).until_s == it["until_s"] + int(cure[2]) * 60
    code, _, err = cli("rent", "extend", it["id"], "--hours", "1")
    assert (code, "booked for as long ahead as can be" in err) == (Exit.USAGE, True)


def test_a_log_is_printed_whole(cli: Told, bed: RentBed):
    """Piece by piece, though it is longer than one; of a machine that isn't there or doesn't answer it is said so."""
    it = rented(cli, "--nodes", "2")["rental"]
    assert cli("rent", "logs", it["id"])[1] == LOG.decode()
    assert cli("rent", "logs", it["id"], "--place", "1")[1] == LOG.decode()
    code, _, err = cli("rent", "logs", it["id"], "--place", "2")
    assert (code, "it has 2, from 0" in err) == (Exit.NOT_FOUND, True)
    for at in (0, 1):
        bed.machine(at).tempers.is_mute = True
    code, _, err = cli("rent", "logs", it["id"], "--place", "1")
    assert (code, "doesn't answer" in err) == (Exit.FAILED, True)


def test_variables_are_printed_alone(cli: Told):
    """`eval` takes them; of what ended there are none."""
    it = rented(cli)["rental"]
    code, out, _ = cli("rent", "env", it["id"])
    assert code == Exit.OK
    assert [line.partition("=")[0] for line in out.splitlines()] == [
        "export RAY_ADDRESS", "export RAY_AUTH_MODE", "export RAY_AUTH_TOKEN_PATH",
    ]  # fmt: skip
    assert cli("rent", "release", it["id"], "--yes")[0] == Exit.OK
    code, _, err = cli("rent", "env", it["id"])
    assert (code, "released by you" in err) == (Exit.FAILED, True)
    assert cli("rent", "logs", it["id"])[0] == Exit.FAILED


def test_an_id_may_be_shortened_while_no_other_begins_so(cli: Told, rentals: Rentals):
    """Ambiguous is refused with what begins so; unknown is exit code 5; what is no id 2."""
    ids = [rented(cli)["rental"]["id"] for _ in range(2)]
    shared = 0
    while ids[0][: shared + 3] == ids[1][: shared + 3]:
        shared += 1
    assert cli("rent", "show", ids[0][2 : shared + 3])[0] in (Exit.OK, Exit.USAGE)
    assert cli("rent", "show", ids[0][2:30].upper())[0] == Exit.OK
    assert cli("rent", "show", "0x" + "0" * 40)[0] == Exit.NOT_FOUND
    assert cli("rent", "show", "0x" + "0" * 64)[0] == Exit.NOT_FOUND
    for wrong in ("", "0x", "xyz", "0" * 65, "../.."):
        assert cli("rent", "show", wrong)[0] == Exit.USAGE


@pytest.mark.parametrize(
    "words",
    [
        ["--nodes", "0"], ["--nodes", "64"], ["--hours", "0.01"], ["--hours", "31d"], ["--hours", "soon"], ["--cpu", "0.999"],
        ["--cpu", "1025"], ["--cpu", "many"], ["--mem", "511MB"], ["--mem", "5000T"], ["--disk", "255MB"], ["--disk", "17T"],
        ["--disk", "much"], ["--gpu", "h100:65"], ["--env", "A"], ["--env", "1A=b"], ["--env", "A=" + "x" * 4097],
        ["--env", "é=b"], ["--env", "x" * 129 + "=b"], ["--max-price", "-1"], ["--near", "2001ms"], ["--same-operator", "101"],
        [it for at in range(65) for it in ("--env", f"A{at}=b")],
    ],
)  # fmt: skip
def test_a_wish_beyond_each_end_is_refused(cli: Told, bed: RentBed, words: list[str]):
    """Exit code 2, with how to write it; nothing is held."""
    assert cli("rent", "--yes", "--no-mesh", *words)[0] == Exit.USAGE
    assert bed.standing() == 3


def test_a_hold_that_is_over_is_told(cli: Told, bed: RentBed, monkeypatch: pytest.MonkeyPatch):
    """Who thinks longer than a minute is told to ask again."""
    with Client(bed.url, bed.key) as client:
        offers = Offers(client)

        def too_late(question: str, yes: bool) -> None:
            for it in held:
                offers.give_back(it)

        held: list[str] = []
        plan = Offers.plan

        def kept(self: Offers, request: Any) -> Any:
            found = plan(self, request)
            held.append(found.hold)
            return found

        monkeypatch.setattr(Offers, "plan", kept)
        monkeypatch.setattr("clusterai.cli.options.confirm", too_late)
        code, _, err = cli("rent", "--no-mesh")
    assert (code, "plans are held for a minute" in err) == (Exit.FAILED, True)


def _has_none(_: Netlink) -> bool:
    return False


def test_without_what_the_mesh_needs_nothing_is_booked_and_the_cure_is_named(
    cli: Told, bed: RentBed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """What to install, and how to rent without; the same for `connect`, while all else works."""
    it = rented(cli)["rental"]
    monkeypatch.setattr(Netlink, "has", _has_none)
    monkeypatch.setenv("PATH", str(tmp_path))
    for words in (["rent", "--yes"], ["rent", "connect", it["id"]]):
        code, _, err = cli(*words)
        assert code == Exit.FAILED
        assert "wireguard-go isn't installed" in err
        assert "apt-get install wireguard-go" in err
        assert "--no-mesh" in err
    assert bed.standing() == 2
    assert "was not connected" in cli("rent", "disconnect", it["id"])[1]
    code, _, err = cli("rent", "shell", it["id"])
    assert (code, "clusterai rent connect" in err) == (Exit.FAILED, True)
    assert cli("rent", "shell", it["id"], "--place", "1")[0] == Exit.NOT_FOUND
    assert cli("rent", "shell", it["id"], "--place", "63")[0] == Exit.USAGE


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "no-such-namespace-here"])
def test_a_namespace_that_is_none_is_refused(cli: Told, bed: RentBed, name: str):
    """Before anything is booked."""
    code, _, err = cli("rent", "--yes", "--netns", name)
    assert (code, "ip netns add" in err) == (Exit.USAGE, True)
    assert bed.standing() == 3


def test_cards_are_rented_by_class_and_number(cli: Told, bed: RentBed):
    """The machine that has them is chosen and told how many; what can't be had names the way out."""
    bed.offer(1, gpu="l4", gpus=4, price_wei=3 * TOKEN)
    booked = rented(cli, "--gpu", "l4:2")
    assert booked["rental"]["setup"]["gpus"] == 2
    (machine,) = booked["plan"]["machines"]
    assert (machine["gpu"]["value"], machine["gpus"]["value"]) == ("l4", 4)
    assert decode_spec(bed.machine(1).opened[-1].spec).gpus == 2
    assert "2 GPUs" in cli("rent", "show", booked["rental"]["id"])[1]
    assert cli("rent", "--gpu", "l4", "--yes", "--no-mesh")[0] == Exit.FAILED, (
        "two renters of one machine's cards"
    )
    assert cli("rent", "release", booked["rental"]["id"], "--yes")[0] == Exit.OK
    bed.until(lambda: bed.standing() == 3, "the machine given back")
    code, _, err = cli("rent", "--gpu", "l4:8", "--yes", "--no-mesh")
    assert code == Exit.FAILED
    assert "4 GPUs of each machine instead of 8" in err
    code, _, err = cli("rent", "--gpu", "h100", "--yes", "--no-mesh")
    assert code == Exit.FAILED
    assert "GPU l4" in err


def test_what_a_machine_tells_its_renter_is_shown(cli: Told, bed: RentBed):
    """Memory that ran out there, with the words to rent more."""
    booked = rented(cli)
    machine = bed.machine(0)
    frame = machine.opened[-1]
    told: Any = StayTold(frame.lease, frame.generation, "memory", "out of memory: rent with more, --mem 4G")
    bed.tell(machine, told)
    bed.until(
        lambda: "out of memory: rent with more, --mem 4G" in cli("rent", "show", booked["rental"]["id"])[1],
        "what it told",
    )
