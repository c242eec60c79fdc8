"""Token.sol: balances, allowances, permit, ERC-3009 authorizations, burn. Votes are OpenZeppelin's and not mirrored."""

from clusterai.ledger.core.events import Transferred
from clusterai.ledger.core.twin.state import UINT256_MAX, Revert, Transaction, World, require
from clusterai.protocol.eip712 import Domain, struct_hash, type_hash, typed_digest
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.signing import BadSignature

_AUTHORIZATION = (
    "(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
TRANSFER_WITH_AUTHORIZATION = type_hash("TransferWithAuthorization" + _AUTHORIZATION)
RECEIVE_WITH_AUTHORIZATION = type_hash("ReceiveWithAuthorization" + _AUTHORIZATION)
PERMIT = type_hash("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")


class Token:
    def __init__(self, world: World, chain_id: int) -> None:
        self._world = world
        self._store = world.store
        self.domain = Domain("ClusterAI", "1", chain_id, world.addresses.token)

    # --- public ---

    def transfer(self, tx: Transaction, to: Address, value: int) -> None:
        self.move(tx, tx.sender, to, value)

    def approve(self, tx: Transaction, spender: Address, value: int) -> None:
        require(tx.sender != ZERO_ADDRESS, "ERC20InvalidApprover")
        require(spender != ZERO_ADDRESS, "ERC20InvalidSpender")
        self._store.put(("allowance", tx.sender, spender), value)

    def burn(self, tx: Transaction, value: int) -> None:
        self.destroy(tx, tx.sender, value)

    def permit(
        self, tx: Transaction, owner: Address, spender: Address, value: int, deadline_s: int, signature: bytes
    ) -> None:
        require(tx.now_s <= deadline_s, "ERC2612ExpiredSignature")
        nonce = self.nonce(owner)
        self._store.put(("permits", owner), nonce + 1)
        digest = struct_hash(PERMIT, owner, spender, value, nonce, deadline_s)
        require(self._signer(digest, signature) == owner, "ERC2612InvalidSigner")
        require(spender != ZERO_ADDRESS, "ERC20InvalidSpender")
        self._store.put(("allowance", owner, spender), value)

    def authorized(
        self,
        tx: Transaction,
        kind: bytes,
        source: Address,
        to: Address,
        value: int,
        valid_after_s: int,
        valid_before_s: int,
        nonce: Digest,
        signature: bytes,
    ) -> None:
        """transferWithAuthorization and receiveWithAuthorization, by `kind`."""
        digest = struct_hash(kind, source, to, value, valid_after_s, valid_before_s, nonce)
        require(self._signer(digest, signature) == source, "ERC3009InvalidSignature")
        if kind == RECEIVE_WITH_AUTHORIZATION:
            require(to == tx.sender, "ERC20InvalidReceiver")
        require(valid_after_s < tx.now_s < valid_before_s, "ERC3009InvalidAuthorizationTime")
        require(not self.authorization_used(source, nonce), "ERC3009UsedAuthorization")
        self._store.put(("authorized", source, nonce), True)
        self.move(tx, source, to, value)

    # --- views ---

    def balance(self, owner: Address) -> int:
        return self._store.get(("balance", owner), 0)

    def allowance(self, owner: Address, spender: Address) -> int:
        return self._store.get(("allowance", owner, spender), 0)

    def supply(self) -> int:
        return self._store.get(("supply",), 0)

    def nonce(self, owner: Address) -> int:
        return self._store.get(("permits", owner), 0)

    def authorization_used(self, owner: Address, nonce: Digest) -> bool:
        return self._store.get(("authorized", owner, nonce), False)

    # --- for the other contracts ---

    def mint(self, tx: Transaction, to: Address, value: int) -> None:
        """Only the constructor mints."""
        self._store.put(("supply",), value)
        self._store.put(("balance", to), value)
        tx.emit(Transferred(ZERO_ADDRESS, to, value))

    def move(self, tx: Transaction, source: Address, to: Address, value: int) -> None:
        require(to != ZERO_ADDRESS, "ERC20InvalidReceiver")
        balance = self.balance(source)
        require(balance >= value, "ERC20InsufficientBalance")
        self._store.put(("balance", source), balance - value)
        self._store.put(("balance", to), self.balance(to) + value)
        tx.emit(Transferred(source, to, value))

    def pull(self, tx: Transaction, spender: Address, owner: Address, to: Address, value: int) -> None:
        """transferFrom by the contract `spender`."""
        allowance = self.allowance(owner, spender)
        if allowance != UINT256_MAX:
            require(allowance >= value, "ERC20InsufficientAllowance")
            self._store.put(("allowance", owner, spender), allowance - value)
        self.move(tx, owner, to, value)

    def destroy(self, tx: Transaction, owner: Address, value: int) -> None:
        balance = self.balance(owner)
        require(balance >= value, "ERC20InsufficientBalance")
        self._store.put(("balance", owner), balance - value)
        self._store.put(("supply",), self.supply() - value)
        tx.emit(Transferred(owner, ZERO_ADDRESS, value))

    def _signer(self, hashed: Digest, signature: bytes) -> Address:
        try:
            return self._world.recover(typed_digest(self.domain.separator(), hashed), signature)
        except BadSignature:
            raise Revert("ERC3009InvalidSignature") from None
