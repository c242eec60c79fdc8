"""Queries over a vault: the engine that does their orders.

    submit: signature, snapshot, grant, plan          refused here: the order is refused, nothing is owed
    then:   spend (durable) ─ compute ─ wait for the beat ─ close the use ─ seal ─ tokens
            └─ refused here: an answer that says so, at no price

ε is spent before anything is computed and never given back. What was computed is a function of query, data and noise key, so who asks for the
same query again, a gateway that replays it or a requester that lost the answer, gets the same answer and spends nothing.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import structlog

from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.vaults import Operation, subject
from clusterai.sandbox import CannotSandbox
from clusterai.vault.core.terms import Denied
from clusterai.work.engine import Stats, Unfit
from clusterai.work.hosting import Taken
from clusterai.work.query.adapters.blocks import Programs, averaged, reviewed
from clusterai.work.query.adapters.computing import budget, counted, needed, result_of
from clusterai.work.query.adapters.hosted import Hosted
from clusterai.work.query.core.plan import RefusedQuery
from clusterai.work.query.core.sql import plan_of
from clusterai.work.query.spec import KIND_NAME, Answer, Averaged, Counted, Held, QuerySpec, Refusal, Said
from clusterai.work.streams import QueueStream

BEAT_S = 0.25
"""SQL is answered on whole beats after it came: what is left of the time it took tells little of the data."""
WAITING = 8
REMEMBERED = 128

log: structlog.stdlib.BoundLogger = structlog.get_logger("work.query")

Sleep = Callable[[float], Awaitable[None]]


class QueryEngine:
    """Orders of the kind `query`, one after another."""

    def __init__(self, vault: Hosted, scratch: Path, sleep: Sleep = asyncio.sleep) -> None:
        """
        Args:
            scratch: a folder for running programs; nothing is written there in the clear.
        """
        self.model: bytes = subject(vault.dataset, KIND_NAME)
        self._vault, self._sleep = vault, sleep
        self._turn = asyncio.Lock()
        self._taken = Taken(WAITING)
        self._said: OrderedDict[Digest, Said] = OrderedDict()
        self.programs: Programs | None = None
        self.no_programs_because = ""
        try:
            self.programs = Programs(scratch)
        except (CannotSandbox, OSError) as error:
            self.no_programs_because = str(error)

    # --- the port ---

    def submit(self, spec: QuerySpec, /) -> QueueStream:
        """
        Raises:
            Busy, Unfit: with the vault's reason.
        """
        self._taken.room()
        query = spec.digest()
        if query not in self._said:
            self._admit(spec)
        return self._taken.take(lambda: self._answer(query, spec))

    def stats(self) -> Stats:
        return self._taken.stats()

    async def close(self) -> None:
        await self._taken.close()

    # --- before anything is spent ---

    def _admit(self, spec: QuerySpec) -> bytes:
        """The key that the answer is sealed to.

        Raises:
            Unfit.
        """
        vault = self._vault
        if spec.model != self.model or not spec.is_signed(vault.network):
            raise Unfit("bad_signature: sign the query by the key that the grant names, for this network")
        if spec.snapshot != vault.snapshot:
            raise Unfit(f"other_snapshot: the data is 0x{vault.snapshot.hex()} now; ask that")
        try:
            permit = vault.permit(
                Digest(spec.grant), Address(spec.requester), spec.operation, Digest(spec.code)
            )
            if spec.operation == Operation.QUERY:
                plan_of(spec.sql, vault.schema)
        except Denied as error:
            raise Unfit(str(error)) from None
        except RefusedQuery as error:
            raise Unfit(f"refused_query: {error}") from None
        if spec.operation != Operation.QUERY and self.programs is None:
            raise Unfit(f"no_sandbox: {self.no_programs_because}")
        return permit.seal_to

    # --- the work ---

    async def _answer(self, query: Digest, spec: QuerySpec) -> bytes:
        async with self._turn:
            said = self._said.get(query)
            if said is None:
                said = await self._worked(query, spec)
                if isinstance(said, Answer):
                    self._said[query] = said
                    if len(self._said) > REMEMBERED:
                        self._said.popitem(last=False)
        return canonical.encode(said)

    async def _worked(self, query: Digest, spec: QuerySpec) -> Said:
        vault = self._vault
        clock = asyncio.get_running_loop().time
        began_s = clock()
        try:
            # Again: while it waited, the grant may have ended.
            seal_to = self._admit(spec)
            delta_pico = await asyncio.to_thread(self._delta_pico, spec)
            await asyncio.to_thread(vault.spend, Digest(spec.grant), query, spec.epsilon_micro, delta_pico)
        except ImportError:
            return Refusal(query, "no_delta", "this vault has no OpenDP, which a δ needs: ask without one")
        except (Denied, Unfit) as error:
            code, _, detail = str(error).partition(": ")
            return Refusal(query, code, detail[:1_000])
        try:
            told = await self._told(query, spec)
        except Exception as error:
            # Whatever broke may have to do with the data: its words stay here, and the use is closed.
            log.exception("query_failed", query=query.hex(), error=type(error).__name__)
            with suppress(Denied):
                vault.used(query, ZERO_DIGEST)
            return Refusal(query, "failed", "the vault couldn't compute it; its ε is spent: ask its owner")
        finally:
            await self._sleep(BEAT_S - (clock() - began_s) % BEAT_S)
        result = result_of(spec, vault.schema, vault.noise_seed(query, spec.nonce), told)
        try:
            use = vault.used(query, result.digest())
        except Denied as error:
            return Refusal(query, error.code, error.detail[:1_000])
        return Answer(query, use, vault.sealed(seal_to, canonical.encode(result)))

    def _delta_pico(self, spec: QuerySpec) -> int:
        """What of the allowed δ is used: none where Laplace noise is less for this plan."""
        if not spec.delta_pico:
            return 0
        return budget(spec, plan_of(spec.sql, self._vault.schema)).delta_pico

    async def _told(self, query: Digest, spec: QuerySpec) -> Counted | Averaged | Held:
        vault = self._vault
        schema, seed = vault.schema, vault.noise_seed(query, spec.nonce)
        if spec.operation == Operation.QUERY:
            names = needed(plan_of(spec.sql, schema), schema)

            def work() -> Counted:
                return counted(spec, schema, vault.columns(names), seed)

            return await asyncio.to_thread(work)
        assert self.programs is not None, "submit looked"
        columns = await asyncio.to_thread(vault.columns, schema.names)
        program = vault.code(Digest(spec.grant))
        if spec.operation == Operation.REVIEW:
            left = await reviewed(self.programs, spec, schema, columns, seed, program, self._sleep)
            await asyncio.to_thread(vault.hold, Digest(spec.grant), query, left)
            return Held()
        return await averaged(self.programs, spec, schema, columns, seed, program, self._sleep)
