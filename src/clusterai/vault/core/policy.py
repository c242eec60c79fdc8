"""What an owner lets be done with its data: by whom, which operations, for how much ε, at what price, until when, where.

The file is TOML, written for a person and read strictly; the machine holds the same in whole millionths and wei. The policy is published: its digest
stands in the listing, so that a requester knows beforehand what will be refused.
"""

import tomllib
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest, address, hex0x
from clusterai.protocol.money import BadAmount, parse, show
from clusterai.protocol.statements import U40, U63, AddressBytes, Wei
from clusterai.protocol.vaults import AccessRequest, Operation, OperationCode
from clusterai.vault.core.schema import Anonymised

MICRO = 1_000_000
PICO = 10**12
MOST_POLICY_BYTES = 64 * 1024
DAY_S = 86_400
Region = Annotated[str, Meta(pattern=r"\A[a-z0-9.-]{1,32}\Z")]
Addresses = Annotated[tuple[AddressBytes, ...], Meta(max_length=1_024)]
Operations = Annotated[tuple[OperationCode, ...], Meta(max_length=len(Operation))]


class BadPolicy(ValueError):
    """The policy can't be used: {why}."""


ORDERED = (Operation.QUERY, Operation.TRAINING, Operation.JOINT)
"""Operations whose orders have a price of their own; programs (`code`, `review`) are ordered as queries are, and cost what these cost."""


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one operation: of each thousandth of ε that a use spends, and of a use."""

    operation: OperationCode
    milli_epsilon_wei: Wei = 0
    use_wei: Wei = 0


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Attributes:
        operations: that may be asked for at all.
        only: requesters that may ask; empty: everybody. `never`: those that may not, whatever else holds.
        grant_epsilon_micro: most of one grant. `requester_epsilon_micro`: of all grants of one requester together. `total_epsilon_micro`: of everybody,
            for ever: privacy that was spent doesn't come back.
        total_delta_pico: the δ of all answers together, in 1e-12.
        milli_epsilon_wei, use_wei, copy_wei: prices: of each thousandth of ε that a use spends, of a use, of the data itself.
        prices: of operations that have others.
        life_s: longest life of a grant.
        residency: regions that rows may not leave; empty: they may be anywhere. It covers rows, in whatever form: no copy is sold or handed out, and a
            machine that says it stands elsewhere serves none. It doesn't cover what is made of them, which has gates of its own: answers, sums, models
            and outputs that the owner released go to whoever asked.
        cohort_owners: in a secure sum there are vaults of so many owners at least, each registered, staked and listed, and no two of one owner;
            0: whom the sum is over is left to the requester. `cohort_stake_wei`: what each of them has at stake at least; one of them is needed.
        anonymise_texts: of the data, when it is put in; until then nothing hands it out (`core.cleaning`). `anonymise_outputs`: of what
            programs leave for review.
        auto_operations: granted without asking the owner, up to `auto_epsilon_micro` a grant, to `auto_only` (empty: everybody).
    """

    operations: Operations = (Operation.QUERY,)
    only: Addresses = ()
    never: Addresses = ()
    grant_epsilon_micro: U63 = 1 * MICRO
    requester_epsilon_micro: U63 = 2 * MICRO
    total_epsilon_micro: U63 = 10 * MICRO
    total_delta_pico: Annotated[int, Meta(ge=0, le=PICO)] = 1_000_000
    milli_epsilon_wei: Wei = 0
    use_wei: Wei = 0
    copy_wei: Wei = 0
    prices: Annotated[tuple[Price, ...], Meta(max_length=len(ORDERED))] = ()
    life_s: U40 = 90 * DAY_S
    residency: Annotated[tuple[Region, ...], Meta(max_length=64)] = ()
    cohort_owners: Annotated[int, Meta(ge=0, le=4096)] = 3
    cohort_stake_wei: Wei = 0
    anonymise_texts: Anonymised = ""
    anonymise_outputs: Anonymised = ""
    auto_operations: Operations = ()
    auto_epsilon_micro: U63 = 0
    auto_only: Addresses = ()

    def check(self) -> None:
        """
        Raises:
            BadPolicy.
        """
        if not self.operations:
            raise BadPolicy("no operation is allowed: then don't serve the vault")
        if not set(self.auto_operations) <= set(self.operations):
            raise BadPolicy("what is granted without asking must be allowed at all")
        if self.residency and Operation.COPY in self.operations:
            raise BadPolicy("data that must stay in a region can't be sold as a copy")
        if Operation.COPY in self.auto_operations and not self.copy_wei:
            raise BadPolicy(
                "copies without asking and without a price: that is publishing; use clusterai data publish"
            )
        priced = [it.operation for it in self.prices]
        if not set(priced) <= set(ORDERED) or len(set(priced)) != len(priced):
            raise BadPolicy(
                f"{', '.join(Operation(it).name.lower() for it in ORDERED)} have prices of their own, one each; code and review cost what a query does"
            )
        if Operation.REVIEW in self.auto_operations:
            raise BadPolicy("review means that you read what leaves: it can't be automatic")

    def stays_in(self, region: str) -> bool:
        """Whether rows may lie where a machine says that it stands: `eu` covers `eu-de`; who says nothing isn't doubted."""
        return (
            not self.residency
            or not region
            or any(region == it or region.startswith((f"{it}-", f"{it}.")) for it in self.residency)
        )

    def digest(self) -> Digest:
        return canonical.digest(self)

    @property
    def is_free(self) -> bool:
        """Nothing is asked for anything."""
        pairs = [self.pair_wei(it) for it in self.operations if it != Operation.COPY]
        return not any(map(any, pairs)) and (Operation.COPY not in self.operations or not self.copy_wei)

    def pair_wei(self, operation: int) -> tuple[int, int]:
        """What an operation's orders cost: each thousandth of ε, and a use."""
        ordered = Operation.QUERY if operation in (Operation.CODE, Operation.REVIEW) else operation
        for it in self.prices:
            if it.operation == ordered:
                return it.milli_epsilon_wei, it.use_wei
        return self.milli_epsilon_wei, self.use_wei

    def offered_wei(self, kind: str) -> tuple[int, int]:
        """The same for a kind of work, as it is offered."""
        found = next((it for it in ORDERED if it.name.lower() == kind), None)
        return (self.milli_epsilon_wei, self.use_wei) if found is None else self.pair_wei(found)

    def price_wei(self, operation: int, epsilon_micro: int) -> int:
        """Of one use; parts of a thousandth of ε count as a whole one."""
        if operation == Operation.COPY:
            return self.copy_wei
        milli_wei, use_wei = self.pair_wei(operation)
        return use_wei + -(-epsilon_micro // 1_000) * milli_wei

    def refusal(self, request: AccessRequest, now_s: float) -> tuple[str, str] | None:
        """Why this can't be granted, whatever the owner thinks of it: a code and words; None where it can."""
        operation = Operation(request.operation).name.lower()
        if request.operation not in self.operations:
            allowed = ", ".join(Operation(it).name.lower() for it in self.operations)
            return "operation", f"{operation} isn't allowed here, only {allowed}"
        who = request.requester
        if who in self.never or (self.only and who not in self.only):
            return "requester", f"{hex0x(who)} isn't among those who may ask"
        if request.epsilon_micro > self.grant_epsilon_micro:
            return "epsilon", (
                f"ε {epsilon(request.epsilon_micro)} is asked, a grant has {epsilon(self.grant_epsilon_micro)} at most"
            )
        if not now_s < request.expires_s <= now_s + self.life_s + DAY_S:
            return "expiry", f"a grant ends in the future, within {self.life_s // DAY_S} days"
        least_wei = self.price_wei(request.operation, 0)
        if request.price_wei < least_wei:
            return "price", f"{show(request.price_wei)} a use is offered, and {show(least_wei)} is asked"
        needs_code = request.operation in (Operation.CODE, Operation.REVIEW, Operation.TRAINING)
        if needs_code != any(request.code):
            return "code", f"{operation} {'names a program' if needs_code else 'has no program'}"
        return None

    def is_automatic(self, request: AccessRequest) -> bool:
        """Of what isn't refused: whether it is granted without the owner."""
        return (
            request.operation in self.auto_operations
            and request.epsilon_micro <= self.auto_epsilon_micro
            and (not self.auto_only or request.requester in self.auto_only)
        )


def anonymising(policy: Policy, how: str) -> Policy:
    """The policy, with texts and outputs anonymised so.

    Raises:
        BadPolicy.
    """
    if how not in ("usual", "strict"):
        raise BadPolicy(f"texts are anonymised usual or strict, and not {how[:40]!r}")
    return msgspec.structs.replace(policy, anonymise_texts=how, anonymise_outputs=how)


def epsilon(micro: int) -> str:
    """As people read it: `0.5`."""
    return _plain(Decimal(micro) / MICRO)


def epsilon_micro(text: str | float | int) -> int:
    """ε as a person writes it, in millionths.

    Raises:
        BadPolicy: no number, negative, or finer than a millionth.
    """
    try:
        found = Decimal(str(text)) * MICRO
    except InvalidOperation:
        raise BadPolicy(f"{str(text)[:40]!r} is no ε: write a number such as 0.5") from None
    if not found.is_finite() or not 0 <= found < 10**12 or found != found.to_integral_value():
        raise BadPolicy(f"ε {str(text)[:40]} must be 0 or more, below a million, and no finer than 0.000001")
    return int(found)


# --- the file ---

TEMPLATE = """\
# Who may do what with this data. It is published with the vault's listing; `clusterai vault show DIR` checks it.

operations = {operations}       # query, code, review, training, copy, joint
only = {only}                   # addresses that may ask; none: everybody
never = {never}

[epsilon]                       # privacy budget; what was spent doesn't come back
grant = {grant}                 # most of one grant
requester = {requester}         # of one requester in all. A requester is a key, and keys cost nothing: `total` is what protects
total = {total}                 # of everybody, for ever
delta = {delta}                 # of everybody, for ever: the chance that ε doesn't hold

[price]
milli_epsilon = "{milli_epsilon}"       # CLAI for each thousandth of ε
use = "{use}"                 # for a use
copy = "{copy}"                # for the data itself, where `copy` is allowed
# [price.training]              # query, training and joint may have prices of their own
# use = "2"
{prices}
[grant]
days = {days}                   # longest life
residency = {residency}         # regions that rows may not leave, such as ["eu"]: no copies, and no machine that says it stands elsewhere.
                                # Answers, sums, models and what you release do leave. Nobody proves where a machine or a bucket stands

[cohort]                        # with whom it sums: vaults of different owners, each registered, staked and listed
owners = {owners}                      # so many at least; 0: whom the requester names
stake = "{stake}"                     # CLAI that each of them has at stake, at least

[anonymise]                     # "usual", "strict" or "": personal data in English texts, as well as it is found
texts = "{anonymise_texts}"                      # of the data, when it is put in: the vault holds nothing else
outputs = "{anonymise_outputs}"                    # of what programs leave for review, before you read it

[auto]                          # granted without asking you
operations = {auto_operations}
epsilon = {auto_epsilon}        # most of a grant
only = {auto_only}
"""


def write_policy(policy: Policy) -> bytes:
    """The file, with its comments."""
    names = _quoted(Operation(it).name.lower() for it in policy.operations)
    return TEMPLATE.format(
        operations=names,
        only=_quoted(map(hex0x, policy.only)),
        never=_quoted(map(hex0x, policy.never)),
        grant=epsilon(policy.grant_epsilon_micro),
        requester=epsilon(policy.requester_epsilon_micro),
        total=epsilon(policy.total_epsilon_micro),
        delta=_plain(Decimal(policy.total_delta_pico) / PICO),
        milli_epsilon=_coins(policy.milli_epsilon_wei),
        use=_coins(policy.use_wei),
        copy=_coins(policy.copy_wei),
        prices="".join(map(_priced, policy.prices)),
        days=policy.life_s // DAY_S,
        residency=_quoted(policy.residency),
        owners=policy.cohort_owners,
        stake=_coins(policy.cohort_stake_wei),
        anonymise_texts=policy.anonymise_texts,
        anonymise_outputs=policy.anonymise_outputs,
        auto_operations=_quoted(Operation(it).name.lower() for it in policy.auto_operations),
        auto_epsilon=epsilon(policy.auto_epsilon_micro),
        auto_only=_quoted(map(hex0x, policy.auto_only)),
    ).encode()


def read_policy(data: bytes) -> Policy:
    """
    Raises:
        BadPolicy: not TOML, an unknown or malformed setting, or it contradicts itself.
    """
    if len(data) > MOST_POLICY_BYTES:
        raise BadPolicy(f"it has {len(data)} bytes, and {MOST_POLICY_BYTES} are the most")
    try:
        found = _File(tomllib.loads(data.decode(), parse_float=Decimal))
        policy = msgspec.convert(found.settings(), Policy)
    except (
        tomllib.TOMLDecodeError,
        UnicodeDecodeError,
        msgspec.ValidationError,
        BadAmount,
        ValueError,
    ) as error:
        raise BadPolicy(str(error)) from None
    policy.check()
    return policy


class _File:
    """The parsed file, taken apart setting by setting; what is left over is unknown."""

    def __init__(self, tables: dict[str, Any]) -> None:
        self._tables = {
            name: cast("dict[str, Any]", value) for name, value in tables.items() if isinstance(value, dict)
        }
        self._tables[""] = {name: value for name, value in tables.items() if not isinstance(value, dict)}

    def settings(self) -> dict[str, Any]:
        usual = Policy()
        found = {
            "operations": self._operations("", "operations", usual.operations),
            "only": self._addresses("", "only"),
            "never": self._addresses("", "never"),
            "grant_epsilon_micro": self._epsilon("grant", usual.grant_epsilon_micro),
            "requester_epsilon_micro": self._epsilon("requester", usual.requester_epsilon_micro),
            "total_epsilon_micro": self._epsilon("total", usual.total_epsilon_micro),
            "total_delta_pico": self._pico(usual.total_delta_pico),
            "milli_epsilon_wei": self._wei("price", "milli_epsilon"),
            "use_wei": self._wei("price", "use"),
            "copy_wei": self._wei("price", "copy"),
            "prices": self._prices(),
            "life_s": self._take("grant", "days", usual.life_s // DAY_S, int) * DAY_S,
            "residency": tuple(self._take("grant", "residency", [], list)),
            "cohort_owners": self._take("cohort", "owners", usual.cohort_owners, int),
            "cohort_stake_wei": self._wei("cohort", "stake"),
            "anonymise_texts": self._take("anonymise", "texts", usual.anonymise_texts, str),
            "anonymise_outputs": self._take("anonymise", "outputs", usual.anonymise_outputs, str),
            "auto_operations": self._operations("auto", "operations", ()),
            "auto_epsilon_micro": epsilon_micro(self._take("auto", "epsilon", 0, (int, Decimal))),
            "auto_only": self._addresses("auto", "only"),
        }
        unknown = [f"{table}.{name}".lstrip(".") for table, names in self._tables.items() for name in names]
        if unknown:
            raise BadPolicy(f"{unknown[0]} is no setting of a policy")
        return found

    def _take(self, table: str, name: str, usual: Any, kind: Any) -> Any:
        value = self._tables.get(table, {}).pop(name, usual)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BadPolicy(f"{table}.{name}".lstrip(".") + f" can't be {str(value)[:40]}")
        return value

    def _operations(self, table: str, name: str, usual: tuple[int, ...]) -> tuple[int, ...]:
        words = self._take(table, name, None, (list, type(None)))
        if words is None:
            return usual
        known = {it.name.lower(): it for it in Operation}
        for word in words:
            if word not in known:
                raise BadPolicy(f"{str(word)[:40]!r} is no operation; there are {', '.join(known)}")
        return tuple(sorted({int(known[word]) for word in words}))

    def _addresses(self, table: str, name: str) -> tuple[Address, ...]:
        return tuple(address(str(it)) for it in self._take(table, name, [], list))

    def _epsilon(self, name: str, usual: int) -> int:
        value = self._take("epsilon", name, None, (int, Decimal, type(None)))
        return usual if value is None else epsilon_micro(value)

    def _pico(self, usual: int) -> int:
        value = self._take("epsilon", "delta", None, (int, Decimal, type(None)))
        if value is None:
            return usual
        found = Decimal(value) * PICO
        if not 0 <= found <= PICO or found != found.to_integral_value():
            raise BadPolicy("epsilon.delta is between 0 and 1, and no finer than 1e-12")
        return int(found)

    def _prices(self) -> tuple[Price, ...]:
        found: list[Price] = []
        for it in Operation:
            name = it.name.lower()
            own: Any = self._tables.get("price", {}).pop(name, None) if it != Operation.COPY else None
            if own is None:
                continue
            if not isinstance(own, dict):
                raise BadPolicy(f"price.{name} is a table: [price.{name}]")
            self._tables[f"price.{name}"] = cast("dict[str, Any]", own)
            found.append(
                Price(it, self._wei(f"price.{name}", "milli_epsilon"), self._wei(f"price.{name}", "use"))
            )
        return tuple(found)

    def _wei(self, table: str, name: str) -> int:
        return parse(str(self._take(table, name, "0", (int, str, Decimal))))


def _priced(it: Price) -> str:
    return (
        f'[price.{Operation(it.operation).name.lower()}]\nmilli_epsilon = "{_coins(it.milli_epsilon_wei)}"\n'
        f'use = "{_coins(it.use_wei)}"\n'
    )


def _quoted(words: Any) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def _coins(amount_wei: int) -> str:
    return _plain(Decimal(amount_wei) / 10**9)


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text
