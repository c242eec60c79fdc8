"""Shows what was kept: transcripts sealed to a validator over a link, or packed for the chain."""

from functools import partial

from clusterai.audit.adapters.sealing import seal
from clusterai.audit.core.opening import TooLong, open_list, open_receipt, pack_answer
from clusterai.node.adapters.vault import Vault
from clusterai.node.core.leases import OpenEpoch, Prepare, Prepared
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address
from clusterai.protocol.messages import EpochOpened, Relay

MOST_BODY_BYTES = 3 * 1024 * 1024
"""Of a relay's body."""
ROOM_BYTES = 64 * 1024
MOST_SEALED = 128
"""Transcripts in one answer: sealing one takes 0.2 ms of the loop's thread; the validator asks for the rest."""


def opened(vault: Vault, me: Address, effect: OpenEpoch) -> Relay:
    """An epoch for a validator. Transcripts that don't fit beside the list are left out; it asks for them again."""
    ask = effect.ask
    bare = EpochOpened(me, ask.epoch, effect.receipts, effect.signatures, ())
    room = MOST_BODY_BYTES - ROOM_BYTES - len(canonical.encode(bare))
    sealed: list[tuple[int, bytes]] = []
    for index, order in effect.drawn[:MOST_SEALED]:
        transcript = vault.get(ask.epoch, order)
        if transcript is None:
            continue
        box = seal(canonical.encode(transcript), ask.seal_to)
        room -= len(box) + 16
        if room < 0:
            break
        sealed.append((index, box))
    body = EpochOpened(me, ask.epoch, effect.receipts, effect.signatures, tuple(sealed))
    return Relay(me, ask.validator, canonical.encode(body))


def prepared(vault: Vault, effect: Prepare) -> Prepared:
    """The answer to a challenge in parts as the Court takes them."""
    return Prepared(effect.epoch, effect.index, effect.validator, _parts(vault, effect))


def _parts(vault: Vault, effect: Prepare) -> tuple[bytes, ...]:
    to = effect.seal_to
    sealer = None if to is None else partial(seal, to=to)
    try:
        if effect.order is None:
            return pack_answer(open_list(effect.receipts), sealer)
        transcript = vault.get(effect.epoch, effect.order)
        if transcript is None:
            return ()
        return pack_answer(open_receipt(effect.receipts, effect.index, transcript), sealer)
    except TooLong:
        return ()
