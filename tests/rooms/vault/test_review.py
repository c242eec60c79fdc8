"""Programs whose output the owner reads: what disclosure control finds, what leaves, and what doesn't."""

import asyncio
from pathlib import Path

import pytest

from clusterai.cli import keeping
from clusterai.cli import main as cli
from clusterai.protocol.access import AskOutput, NotGiven, OutputShown
from clusterai.protocol.canonical import content_digest
from clusterai.protocol.ids import Digest
from clusterai.protocol.vaults import Operation, Revoked
from clusterai.vault.core import disclosure
from clusterai.vault.core.disclosure import examine
from clusterai.vault.core.terms import Denied
from clusterai.work.engine import TokenEvent
from clusterai.work.packed import bytes_of
from clusterai.work.query.adapters.service import QueryEngine
from clusterai.work.query.spec import Answer, Held, asked, decode_result, decode_said
from tests.rooms.vault.vaultbed import NETWORK, SECRET, Bed

ORDER = Digest(b"1" * 32)
MEAN = b"""import csv, json
rows = list(csv.DictReader(open("/job/in/rows.csv")))
json.dump({"mean age": round(sum(float(it["age"]) for it in rows) / len(rows), 2)}, open("/job/out/result.json", "w"))
"""
SMUGGLER = b"""import csv, json
rows = list(csv.DictReader(open("/job/in/rows.csv")))
json.dump({"model": [it["note"].upper() for it in rows]}, open("/job/out/result.json", "w"))
"""
FAILS = b"""import csv
rows = list(csv.DictReader(open("/job/in/rows.csv")))
print(rows[0]["noet"])
"""
SMUGGLES_FAILING = b"""import csv
raise ValueError([it["note"] for it in csv.DictReader(open("/job/in/rows.csv"))])
"""


def codes(output: bytes, *texts: str | None) -> list[str]:
    return [it.code for it in examine(output, texts)]


def test_what_disclosure_control_finds() -> None:
    """Rows, whatever their case and spacing; what can't be read; small cells, floods and tails of numbers."""
    assert codes(b'{"mean": 12.5}', SECRET, None) == []
    assert codes(SECRET.encode(), SECRET) == ["rows"]
    assert codes(SECRET.upper().replace(" ", "\n  ").encode(), SECRET) == ["rows"]
    assert codes(b"\xff\xfe", SECRET) == ["binary"]
    assert codes(b"a\x00b", SECRET) == ["binary"]
    assert codes(b"east,3\nwest,40\n", "east") == ["small_cells"]
    assert codes(b"0.1234567") == ["precise"]
    assert codes(b"\n".join(b"%d" % (100 + it) for it in range(501))) == ["many_numbers"]
    assert codes(b"word " * 4_000) == ["long"]


def test_numbers_that_stand_in_private_columns_are_pointed_out() -> None:
    """A column written down as it is, whatever stands around a number; means, and short numbers that stand anywhere, aren't."""
    columns = [[17.95, 0.08402, None], [1761, 40, -982]]

    def told(output: bytes) -> list[str]:
        return [it.detail[:9] for it in examine(output, (), columns) if it.code == "values"]

    assert told(b'[{"radius": "17.95", "area": 1761.0}, [-982], -982, 0.08402]') == ["3 numbers"]
    assert told(b"area,17.950\n") == ["1 numbers"]
    assert told(b'{"mean": 12.96, "area": 40.00, "n": 982}') == []


def test_an_owner_is_told_of_a_column_of_numbers(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that writes down what its patients got. Of the bed's doses 1.25 and 2.25 have three digits, and 0.25 has two."""
    monkeypatch.setattr(disclosure, "LEAST_DIGITS", 3)
    hold(bed, b"0.25,1.25,2.25,99.5")
    [held] = bed.vault.review.outputs()
    assert [(it.code, it.detail[:9]) for it in held.findings] == [("values", "2 numbers")]
    assert not held.findings[0].stops


def hold(bed: Bed, output: bytes = b'{"mean": 12.5}') -> Digest:
    grant = bed.grant(operation=Operation.REVIEW, code=MEAN, epsilon_micro=0)
    bed.vault.hold(grant, ORDER, output)
    return grant


def test_an_output_leaves_when_its_owner_lets_it(bed: Bed) -> None:
    """Before that nobody gets it; after it its requester does, with the log's leaf about it, also after a restart."""
    hold(bed)

    async def run() -> None:
        waiting = await bed.call(AskOutput(ORDER))
        assert isinstance(waiting, NotGiven)
        assert waiting.code == "pending"
        use = bed.vault.review.release(ORDER)
        assert bed.vault.review.release(ORDER) == use
        bed.now_s += 1
        bed.restart()
        shown = await bed.call(AskOutput(ORDER))
        assert isinstance(shown, OutputShown)
        assert (shown.output, shown.use) == (b'{"mean": 12.5}', use)
        assert use.use.result == content_digest(shown.output)

    asyncio.run(run())


def test_what_is_plainly_rows_doesnt_leave(bed: Bed) -> None:
    """Neither by the owner's mistake nor by a program that writes them in capitals."""
    hold(bed, f"weights: {SECRET.upper()}".encode())
    with pytest.raises(Denied, match="disclosure: rows: 1 texts of private columns"):
        bed.vault.review.release(ORDER)
    bed.vault.review.withhold(ORDER, "that is a row")
    with pytest.raises(Denied, match="withheld: the vault's owner withheld it: that is a row"):
        bed.vault.review.released(ORDER, bed.identity.address)
    assert bed.vault.review.outputs()[0].output == b""
    with pytest.raises(Denied, match="closed"):
        bed.vault.review.release(ORDER)


def test_another_requester_or_a_revoked_one_gets_nothing(bed: Bed) -> None:
    """An output is of the grant that made it, and of its holder."""
    grant = hold(bed)
    with pytest.raises(Denied, match="unknown"):
        bed.vault.review.released(ORDER, bed.owner)
    bed.vault.revoke(grant, Revoked.TERMS)
    with pytest.raises(Denied, match="revoked"):
        bed.vault.review.release(ORDER)


def test_held_outputs_are_encrypted(bed: Bed) -> None:
    """A thief of the disk reads neither what was made nor what was found."""
    hold(bed, b"the mean is 12.5")
    [path] = bed.folder.held.iterdir()
    assert b"the mean is" not in path.read_bytes()


def ran(bed: Bed, program: bytes) -> tuple[Digest, Answer]:
    """Order a program for review, over the real sandbox."""
    grant = bed.grant(operation=Operation.REVIEW, code=program, epsilon_micro=0)
    unsigned = asked(
        dataset=bed.vault.dataset,
        snapshot=bed.vault.snapshot,
        grant=grant,
        requester=bed.identity.address,
        nonce=b"n" * 32,
        code=content_digest(program),
        block_s=60,  # A slow machine takes its time to start a program.
    )
    spec = unsigned.signed(bed.identity.key, NETWORK)

    async def at_once(_: float) -> None:
        """The rest of its slot passes."""

    async def run() -> Answer:
        engine = QueryEngine(bed.vault, bed.vault.folder.state / "programs", at_once)
        tokens = [it.token async for it in engine.submit(spec) if isinstance(it, TokenEvent)]
        await engine.close()
        said = decode_said(bytes_of(tuple(tokens)))
        assert isinstance(said, Answer), said
        return said

    return spec.digest(), asyncio.run(run())


def test_a_reviewed_program_end_to_end(bed: Bed) -> None:
    """It sees all rows, its order is answered with nothing of them, and what it made waits for the owner."""
    order, answer = ran(bed, MEAN)
    result = decode_result(bed.identity.opened(bed.vault.seal_to, answer.sealed))
    assert isinstance(result.told, Held)
    [held] = bed.vault.review.outputs()
    assert (held.order, held.output, held.state) == (order, b'{"mean age": 34.5}', "held")
    bed.vault.review.release(order)
    assert bed.vault.review.released(order, bed.identity.address)[0] == b'{"mean age": 34.5}'


def test_a_smuggler_of_rows_is_stopped(bed: Bed) -> None:
    """A program that calls rows its model: found, and not released."""
    order, _ = ran(bed, SMUGGLER)
    with pytest.raises(Denied, match="disclosure: rows"):
        bed.vault.review.release(order)


def test_why_a_program_failed_is_reviewed_too(bed: Bed) -> None:
    """Its requester learns its own mistake once the owner has read it; an error that says rows is found as any output is."""
    order, _ = ran(bed, FAILS)
    [held] = bed.vault.review.outputs()
    told = held.output.decode()
    assert told.startswith("the program made nothing: failed, exit code 1.")
    assert 'program.py", line 3' in told
    assert "KeyError: 'noet'" in told
    assert not any(it.stops for it in held.findings)
    bed.vault.review.release(order)
    assert bed.vault.review.released(order, bed.identity.address)[0] == held.output
    order, _ = ran(bed, SMUGGLES_FAILING)
    with pytest.raises(Denied, match="disclosure: rows"):
        bed.vault.review.release(order)


def test_the_owner_types_it(bed: Bed, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Outputs, read, release: a command waits at the desk where nobody serves the vault."""
    hold(bed, b"mean 12.5, of 3 people\x1b[2J")
    bed.vault.review.withhold(ORDER)
    hold_again = Digest(b"2" * 32)
    grant = bed.vault.entries()[0].grant or ORDER
    bed.vault.spend(grant, hold_again, 0)
    bed.vault.hold(grant, hold_again, b"mean 12.5, of 3 people")
    folder = str(bed.folder.root)
    assert cli.run(["vault", "outputs", folder]) == 0
    assert "small_cells: 1 whole numbers below 10" in capsys.readouterr().out
    assert cli.run(["vault", "outputs", folder, "--read", "3232"]) == 0
    assert capsys.readouterr().out == "mean 12.5, of 3 people\n"
    bed.vault.close()
    assert cli.run(["vault", "release", folder, "3232", "-y"]) == 0
    assert "nobody serves the vault" in capsys.readouterr().out
    bed.open()
    bed.vault.tick()
    assert [it.state for it in bed.vault.review.outputs()] == ["withheld", "released"]
    assert [it.price_wei for it in keeping.uses(keeping.book(bed.folder))] == [50, 0]
    assert cli.run(["vault", "outputs", folder, "--read", "ffff"]) == 5


def test_what_the_owner_reads_isnt_replaced_by_another_run(bed: Bed) -> None:
    """The same order run again, with another output, changes nothing of what lies there: neither while it is read nor afterwards."""
    grant = hold(bed)
    bed.vault.hold(grant, ORDER, b"all rows, in other words")
    assert [it.output for it in bed.vault.review.outputs()] == [b'{"mean": 12.5}']
    use = bed.vault.review.release(ORDER)
    bed.vault.hold(grant, ORDER, b"all rows, in other words")
    assert bed.vault.review.released(ORDER, bed.identity.address) == (b'{"mean": 12.5}', use)
