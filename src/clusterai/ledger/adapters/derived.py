"""The accounts of an owner's machines, from the owner's key alone: nothing else is to be kept, and nothing to be lost.

    machine 1       the owner itself
    machine n       BIP-32 with the owner's 32 secret bytes as its seed, at m/44'/60'/n'/0'/0', by eth-account

Each step is hardened: who takes one machine's key learns neither the owner's nor another machine's. Any wallet that takes a seed
and a path comes to the same keys.
"""

from clusterai.protocol.signing import Key
from clusterai.runtime.adapters.recursion import same_recursion_limit

MOST_MACHINES = 1_000
GAP = 20
"""So many numbers in a row that nobody registered end a search, as wallets have it (BIP-44)."""


def machine_key(owner: Key, number: int) -> Key:
    """The key of the account of an owner's `number`th machine, 1 to `MOST_MACHINES`."""
    assert 1 <= number <= MOST_MACHINES, "whoever asks has looked"
    if number == 1:
        return owner
    with same_recursion_limit():
        from eth_account.hdaccount import key_from_seed
    return Key(key_from_seed(owner.secret(), f"m/44'/60'/{number}'/0'/0'"))
