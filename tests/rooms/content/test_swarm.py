"""Who fetches what from whom, without sockets."""

from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.content import File, Manifest
from clusterai.content.core.swarm import MOST_FAILURES, STEAL_S, Run, Swarm

PIECE = 1 << 16


def manifest(*pieces: int) -> Manifest:
    return Manifest(
        PIECE, tuple(File(f"{n:03}", PIECE * count, bytes(32 * count)) for n, count in enumerate(pieces))
    )


def swarm(pieces: int = 12, holders: int = 2, hands: int = 1, run: int = 4) -> Swarm:
    return Swarm(manifest(pieces), range(pieces), [hands] * holders, run * PIECE)


def took(one: Swarm, holder: int, now_s: float = 0.0) -> Run:
    run = one.take(holder, now_s)
    assert run is not None
    return run


def bring(one: Swarm, run: Run) -> None:
    for piece in range(run.first, run.first + run.count):
        one.got(run, piece)
    one.done(run)


def test_runs_are_consecutive_and_of_one_file() -> None:
    """One request is one range of one file."""
    one = Swarm(manifest(3, 5), [0, 2, 3, 4, 5, 6, 7], [9], 4 * PIECE)
    runs = [(run.first, run.count) for _ in range(4) if (run := one.take(0, 0.0))]
    assert runs == [(0, 1), (2, 1), (3, 4), (7, 1)]


def test_the_faster_holder_takes_more() -> None:
    """Nobody is assigned pieces in advance: who has a hand free takes the next run."""
    one = swarm(12)
    slow = took(one, 1)
    for _ in range(2):
        bring(one, took(one, 0))
    bring(one, slow)
    assert [pieces for _, _, pieces, _ in one.states()] == [8, 4]
    assert one.is_over
    assert one.left == 0


def test_what_a_silent_holder_has_is_taken_over() -> None:
    """At the end an idle holder asks for the later half of what has been under way for long, and the first copy counts."""
    one = swarm(8)
    silent = took(one, 1)
    bring(one, took(one, 0))
    assert one.take(0, STEAL_S / 2) is None
    stolen = took(one, 0, STEAL_S)
    assert (stolen.first, stolen.count) == (silent.first + 2, 2)
    bring(one, stolen)
    rest = took(one, 0, 2 * STEAL_S)
    assert one.got(rest, rest.first)
    assert not one.got(silent, rest.first)
    bring(one, rest)
    last = took(one, 0, 3 * STEAL_S) if one.left else None
    if last:
        bring(one, last)
    assert one.left == 0
    assert not one.wanted(silent)


def test_a_holder_that_fails_rests_longer_and_is_left() -> None:
    """Its pieces go back at once; after six failures in a row it isn't asked any more."""
    one, now_s = swarm(4), 0.0
    for failure in range(MOST_FAILURES):
        run = took(one, 0, now_s)
        one.failed(run, "refused", now_s)
        assert one.take(0, now_s) is None
        now_s = one.wakes_s(0, now_s) or now_s
        assert failure == MOST_FAILURES - 1 or now_s > 0
    assert one.states()[0][:2] == ("left", "refused")
    bring(one, took(one, 1, now_s))
    assert one.left == 0


def test_one_right_answer_forgives_failures() -> None:
    """Six in a row are counted, not six in all."""
    one, now_s = swarm(40, holders=1, run=1), 0.0
    for _ in range(10):
        one.failed(took(one, 0, now_s), "slow", now_s)
        now_s = one.wakes_s(0, now_s) or now_s
        bring(one, took(one, 0, now_s))
    assert one.states()[0][0] == "good"


def test_a_corrupt_holder_is_left_at_once() -> None:
    """Its other requests are worth nothing either: the piece is fetched elsewhere."""
    one = swarm(8, hands=2)
    bad, other = took(one, 0), took(one, 0)
    one.corrupt(bad, "piece 0")
    one.failed(other, "broken off", 0.0)
    assert one.states()[0][0] == "corrupt"
    assert one.take(0, 99.0) is None
    bring(one, took(one, 1))
    bring(one, took(one, 1))
    assert one.left == 0


def test_it_ends_when_nobody_is_left() -> None:
    """No holder, no waiting for ever."""
    one = swarm(4, holders=1)
    one.corrupt(took(one, 0), "piece 0")
    assert one.is_over
    assert one.left == 4
    assert Swarm(manifest(3), [0], [0]).is_over


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_holders_do_every_piece_comes_once(data: st.DataObject) -> None:
    """With one honest holder among others that fail, lie or keep silent, all arrives; each piece counts once."""
    sizes = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=5))
    one = Swarm(manifest(*sizes), range(sum(sizes)), [2, 2, 2], 3 * PIECE)
    counted: list[int] = []
    open_runs: list[tuple[int, Run]] = []
    now_s = 0.0
    for _ in range(2000):
        if one.is_over:
            break
        now_s += data.draw(st.sampled_from([0.0, 0.1, 1.0])) if len(counted) < 5 else 1.0
        for holder in range(3):
            run = one.take(holder, now_s)
            open_runs += [] if run is None else [(holder, run)]
        for holder, run in list(open_runs):
            act = "good" if holder == 0 else data.draw(st.sampled_from(["good", "fail", "corrupt", "silent"]))
            if act == "silent":
                continue
            open_runs.remove((holder, run))
            if act == "fail":
                one.failed(run, "fails", now_s)
            elif act == "corrupt":
                one.corrupt(run, "lies")
            else:
                counted += [it for it in range(run.first, run.first + run.count) if one.got(run, it)]
                one.done(run)
    assert sorted(counted) == list(range(sum(sizes)))
