"""Evidence on disk: encrypted while its epoch is judged, and open for everyone once it stands behind a verdict.

    evidence/<provider>-<epoch>/<digest>     sealed bundles, readable with evidence.key alone
    verdicts/<digest>.json                   bundles of accused receipts, with what was found: for replay

Transcripts are people's prompts and answers. Those of right receipts are deleted when their epoch's window ends.
"""

import shutil
from pathlib import Path
from typing import Any

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from clusterai.audit.core.evidence import Bundle
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.validator.core.words import Forget, Keep, Noted


class EvidenceStore:
    """Under `folder`; `key` is 32 secret bytes."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self._sealed = folder / "evidence"
        self._verdicts = folder / "verdicts"
        self._box = SecretBox(key)
        self._sealed.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._verdicts.mkdir(parents=True, exist_ok=True)

    def keep(self, effect: Keep) -> None:
        folder = self._folder(Address(effect.bundle.receipt.provider), effect.epoch)
        folder.mkdir(exist_ok=True, mode=0o700)
        path = folder / effect.evidence.hex()
        if not path.exists():
            _write(path, self._box.encrypt(canonical.encode(effect.bundle)))

    def load(self, provider: Address, epoch: int, evidence: Digest) -> Bundle | None:
        """A kept bundle; None where there is none, or the file was changed."""
        path = self._folder(provider, epoch) / evidence.hex()
        try:
            return canonical.decode(self._box.decrypt(path.read_bytes()), Bundle)
        except (OSError, CryptoError, canonical.Malformed):
            return None

    def accused(self, noted: Noted) -> Path | None:
        """Write what stands behind a verdict for people: the note, and the case if it is of one receipt."""
        if noted.evidence is None:
            return None
        bundle = self.load(noted.provider, noted.epoch, noted.evidence)
        page: dict[str, Any] = {
            "provider": hex0x(noted.provider),
            "epoch": noted.epoch,
            "index": noted.index,
            "why": noted.detail,
            "evidence": hex0x(noted.evidence),
        }
        if bundle is not None:
            page |= {
                "receipt_id": hex0x(bundle.receipt.order),
                "receipt": readable(bundle.receipt),
                "order": readable(bundle.transcript.order),
                "answer": {
                    "tokens": bundle.transcript.answer.tokens,
                    "reason": bundle.transcript.answer.reason,
                },
                "kind": bundle.transcript.kind,
                "request": hex0x(bundle.transcript.request),
                "bundle": hex0x(canonical.encode(bundle)),
            }
        path = self._verdicts / f"{noted.evidence.hex()}.json"
        _write(path, msgspec.json.format(msgspec.json.encode(page)) + b"\n")
        return path

    def forget(self, effect: Forget) -> None:
        """Delete the epoch's transcripts; accused ones live on in their verdicts' files."""
        folder = self._folder(effect.provider, effect.epoch)
        if folder.is_dir():
            shutil.rmtree(folder)

    def _folder(self, provider: Address, epoch: int) -> Path:
        return self._sealed / f"{provider.hex()}-{epoch}"


def readable(value: msgspec.Struct) -> dict[str, Any]:
    """A flat statement with bytes as 0x hex."""
    return {
        name: hex0x(found) if isinstance(found := getattr(value, name), bytes) else found
        for name in value.__struct_fields__
    }


def _write(path: Path, data: bytes) -> None:
    """A reader sees all of it or nothing."""
    aside = path.with_name(f".{path.name}")
    aside.write_bytes(data)
    aside.replace(path)
