"""A data set's card: Hugging Face's keys for people and hubs, Croissant for machines, and what only a vault has.

One JSON object, whose digest stands in the listing. The README of the vault's folder is where its owner edits it: YAML between two lines of `---`, then
words, as on Hugging Face. Columns, mock and prices are added here, so that they can't say something else than the vault does.
"""

from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta

from clusterai.protocol.calls import MOST_CARD_BYTES
from clusterai.protocol.croissant import About, ColumnType, Field, FileObject, Records, dataset
from clusterai.protocol.ids import Digest, hex0x
from clusterai.protocol.vaults import Operation
from clusterai.vault.core.policy import Policy
from clusterai.vault.core.schema import Schema

MOST_README_BYTES = 64 * 1024
Word = Annotated[str, Meta(max_length=256)]
Words = Annotated[tuple[Word, ...], Meta(max_length=64)]


class BadCard(ValueError):
    """The data card can't be used: {why}."""


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Hugging Face's keys of a data card. Source: huggingface.co/docs/hub/datasets-cards, datasetcard.md template."""

    license: Word = ""
    license_name: Word = ""
    license_link: Word = ""
    language: Words = ()
    pretty_name: Word = ""
    tags: Words = ()
    annotations_creators: Words = ()
    language_creators: Words = ()
    language_details: Words = ()
    multilinguality: Words = ()
    size_categories: Words = ()
    source_datasets: Words = ()
    task_categories: Words = ()
    task_ids: Words = ()
    paperswithcode_id: Word = ""


def read_readme(data: bytes) -> tuple[Head, str]:
    """The keys, and the words below them.

    Raises:
        BadCard: too long, no YAML between the lines, an unknown key.
    """
    if len(data) > MOST_README_BYTES:
        raise BadCard(f"README.md has {len(data)} bytes, and {MOST_README_BYTES} are the most")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise BadCard("README.md is no UTF-8 text") from None
    if not text.startswith("---\n"):
        return Head(), text.strip()
    head, closed, words = text[4:].partition("\n---")
    if not closed:
        raise BadCard("README.md begins with --- and has no second line of ---")
    try:
        found: Any = yaml.safe_load(head) or {}
        return msgspec.convert(found, Head), words.lstrip("-").strip()
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError) as error:
        raise BadCard(f"README.md: {str(error)[:500]}") from None


def write_readme(head: Head, words: str) -> bytes:
    keys = yaml.safe_dump(msgspec.to_builtins(head), sort_keys=False, allow_unicode=True)
    return f"---\n{'' if keys.strip() == '{}' else keys}---\n\n{words.strip()}\n".encode()


def vault_card(
    readme: bytes,
    name: str,
    schema: Schema,
    policy: Policy,
    snapshot: Digest,
    seal_to: bytes,
    dataset: Digest,
) -> bytes:
    """The card of a vault.

    Raises:
        BadCard: the README can't be used, or all of it together is too long.
    """
    head, words = read_readme(readme)
    card: dict[str, Any] = {
        **msgspec.to_builtins(head),
        "name": name,
        "description": words,
        "croissant": croissant(name, head, words, schema, snapshot),
        "clusterai": {
            "kind": "vault",
            "dataset": hex0x(dataset),
            "snapshot": hex0x(snapshot),
            "seal_to": hex0x(seal_to),
            "schema": msgspec.to_builtins(schema),
            "policy": {
                "digest": hex0x(policy.digest()),
                "operations": [Operation(it).name.lower() for it in policy.operations],
                "grant_epsilon_micro": policy.grant_epsilon_micro,
                "requester_epsilon_micro": policy.requester_epsilon_micro,
                "total_epsilon_micro": policy.total_epsilon_micro,
                "total_delta_pico": policy.total_delta_pico,
                "milli_epsilon_wei": policy.milli_epsilon_wei,
                "use_wei": policy.use_wei,
                "copy_wei": policy.copy_wei,
                "prices": {
                    Operation(it.operation).name.lower(): {
                        "milli_epsilon_wei": it.milli_epsilon_wei,
                        "use_wei": it.use_wei,
                    }
                    for it in policy.prices
                },
                "anonymise_texts": policy.anonymise_texts,
                "anonymise_outputs": policy.anonymise_outputs,
                "residency": list(policy.residency),
                "automatic": [Operation(it).name.lower() for it in policy.auto_operations],
            },
        },
    }
    encoded = msgspec.json.encode(card, order="sorted")
    if len(encoded) > MOST_CARD_BYTES:
        raise BadCard(
            f"the card has {len(encoded)} bytes, and {MOST_CARD_BYTES} are the most: shorten README.md"
        )
    return encoded


class VaultFacts(msgspec.Struct, frozen=True):
    """What a requester needs of a vault's card. The rest is words."""

    kind: str
    seal_to: str
    schema: Schema
    policy: dict[str, Any]
    snapshot: str
    dataset: str


class _Card(msgspec.Struct, frozen=True):
    clusterai: VaultFacts
    name: str = ""
    description: str = ""


def read_facts(card: bytes) -> VaultFacts:
    """Of a card whose digest the listing names.

    Raises:
        BadCard: it is no vault's card.
    """
    if len(card) > MOST_CARD_BYTES:
        raise BadCard("the card is too long")
    try:
        facts = msgspec.json.decode(card, type=_Card).clusterai
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadCard(f"this is no vault's card: {error}") from None
    facts.schema.check()
    if facts.kind != "vault" or len(bytes.fromhex(facts.seal_to.removeprefix("0x"))) != 32:
        raise BadCard("this is no vault's card")
    return facts


# --- Croissant ---

_TYPES: dict[str, ColumnType] = {
    "int": "sc:Integer",
    "float": "sc:Float",
    "text": "sc:Text",
    "bool": "sc:Boolean",
    "category": "sc:Text",
    "date": "sc:Date",
}


def croissant(
    name: str, head: Head, words: str, schema: Schema, snapshot: Digest, mock_sha256: str = ""
) -> dict[str, Any]:
    """Its one file is the mock twin: the data itself can't be fetched.

    Args:
        mock_sha256: of `mock.csv` beside it; without it, no file is named.
    """
    about = About(
        name,
        title=head.pretty_name,
        description=words,
        licence=head.license,
        tags=head.tags,
        languages=head.language,
        version=f"1.0.0+{snapshot.hex()[:16]}",
    )
    if not mock_sha256:
        return dataset(about)
    said = "Synthetic rows of the declared schema; none of them is of the data."
    mock = FileObject("mock.csv", "mock.csv", "text/csv", mock_sha256, description=said)
    fields = tuple(
        Field(it.name, _TYPES[it.kind], it.about or f"{it.access} {it.kind}")
        for it in schema.columns
        if it.kind in _TYPES
    )
    return dataset(about, [mock], [Records("rows", "rows", "mock.csv", fields)])
