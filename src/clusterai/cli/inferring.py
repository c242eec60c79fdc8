"""`clusterai infer --encrypted`: reads inputs, encrypts them here, orders answers, decrypts them. The key is in this process alone, for one request."""

import base64
import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clusterai.cli.failure import Exit, Failure

if TYPE_CHECKING:
    from clusterai.models.store import StoredModel
    from clusterai.sdk import Client
    from clusterai.work.sealed.adapters.requester import Question
    from clusterai.work.sealed.core.model import Shape

Floats = NDArray[np.float64]
MOST_INPUT_BYTES = 64 << 20
MOST_INPUTS = 100_000


class Inferred(msgspec.Struct, frozen=True, kw_only=True):
    """What `infer` tells programs.

    Attributes:
        values: of each input, in the order of `outputs`: probabilities where the model has such.
        error: the largest difference from the model's outputs in the clear, before its link; None where its weights aren't on this machine.
        sent_bytes, received_bytes: ciphertexts.
    """

    model: str
    address: str
    outputs: tuple[str, ...]
    values: list[list[float]]
    answers: list[str]
    error: float | None
    requests: int
    sent_bytes: int
    received_bytes: int
    charged_wei: int
    providers: list[str]
    receipts: list[str]
    encrypt_s: float
    wait_s: float
    decrypt_s: float


def rows_of(path: Path, features: Sequence[str]) -> Floats:
    """Inputs (inputs, features) from a .json, .csv or .npy file.

    Raises:
        Failure: it can't be read; it says which line or column.
    """
    try:
        if path.stat().st_size > MOST_INPUT_BYTES:
            raise Failure(f"{path} is larger than {MOST_INPUT_BYTES >> 20} MiB", next="send it in parts")
        raw = path.read_bytes()
    except OSError as error:
        raise Failure(f"{path} can't be read", error.strerror or "", code=Exit.NOT_FOUND) from None
    try:
        match path.suffix.lower():
            case ".npy":
                found = np.atleast_2d(np.load(io.BytesIO(raw), allow_pickle=False)).astype(np.float64)
            case ".csv":
                found = _from_csv(raw.decode("utf-8-sig"), features)
            case ".json":
                found = _from_json(msgspec.json.decode(raw), features)
            case suffix:
                raise Failure(f"{suffix or path} is no kind of input", next="give a .json, .csv or .npy file")
    except (ValueError, TypeError, msgspec.MsgspecError) as error:
        raise Failure(f"{path} holds no inputs of this model", str(error), _wanted(features)) from None
    if not 1 <= len(found) <= MOST_INPUTS or found.ndim != 2 or found.shape[1] != len(features):
        raise Failure(
            f"{path} holds no inputs of this model", f"its shape is {found.shape}", _wanted(features)
        )
    return found


def _wanted(features: Sequence[str]) -> str:
    named = ", ".join(features[:3]) + (", …" if len(features) > 3 else "")
    return f"each input has {len(features)} numbers ({named}), at most {MOST_INPUTS} inputs"


def _from_csv(text: str, features: Sequence[str]) -> Floats:
    lines = [line for line in csv.reader(io.StringIO(text)) if line]
    if lines and not _is_number(lines[0][0]):
        names = [name.strip() for name in lines[0]]
        missing = [name for name in features if name not in names]
        if missing:
            raise ValueError(f"no column {missing[0]!r} ({len(missing)} missing)")
        places = [names.index(name) for name in features]
        return np.array([[float(line[at]) for at in places] for line in lines[1:]])
    return np.array([[float(it) for it in line] for line in lines])


def _from_json(value: Any, features: Sequence[str]) -> Floats:
    if isinstance(value, dict):
        value = [value]
    rows = msgspec.convert(value, list[Any])
    if rows and isinstance(rows[0], dict):
        named = [
            msgspec.convert({it: row[it] for it in features if it in row}, dict[str, float])
            for row in msgspec.convert(rows, list[dict[str, Any]])
        ]
        missing = [name for name in features if any(name not in row for row in named)]
        if missing:
            raise ValueError(f"an input has no {missing[0]!r}")
        return np.array([[row[name] for name in features] for row in named])
    if rows and isinstance(rows[0], list):
        return np.array(msgspec.convert(rows, list[list[float]]))
    return np.atleast_2d(np.array(msgspec.convert(rows, list[float])))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def stored(name: str) -> "tuple[StoredModel, Shape]":
    """
    Raises:
        Failure: this machine doesn't know the model, or it isn't for sealed inputs.
    """
    from clusterai.models.store import Altered, ModelStore, NoSuchModel
    from clusterai.runtime.adapters.config import default_models
    from clusterai.work.sealed.core.model import BadModel, read_shape

    store = ModelStore(default_models())
    try:
        model = store.get(name)
        if model.card.kind != "sealed":
            raise Failure(
                f"{name} is a model for {model.card.kind}: it reads inputs in the clear",
                next="clusterai models lists those of kind sealed",
            )
        # What is encrypted must be what the model was made for: the shape is verified with all of the model.
        store.verify(model)
        return model, read_shape(model.paths["shape.json"].read_bytes())
    except NoSuchModel as error:
        raise Failure(str(error), code=Exit.NOT_FOUND) from None
    except (Altered, BadModel) as error:
        raise Failure(f"{name} can't be used", str(error)) from None


def infer(client: "Client", name: str, path: Path, max_price_wei: int | None) -> Inferred:
    """
    Raises:
        Failure: see `stored` and `rows_of`; or an input lies beyond the model, or an answer isn't one.
    """
    from clusterai.protocol.ids import hex0x
    from clusterai.work.sealed.adapters.requester import NotTheAnswer, questions
    from clusterai.work.sealed.core.wire import NoCiphertext

    model, shape = stored(name)
    rows = rows_of(path, shape.features)
    began_s = time.monotonic()
    try:
        asked = questions(bytes(model.address), shape, rows)
    except ImportError:
        raise Failure(
            "encryption needs TenSEAL, which isn't installed", next="pip install 'clusterai[sealed]'"
        ) from None
    except ValueError as error:
        raise Failure(f"{path} wasn't sent", str(error)) from None
    encrypted_s = time.monotonic()
    spent_wei, providers, receipts, answers = 0, set[str](), list[str](), list[bytes]()
    for question in asked:
        left_wei = None if max_price_wei is None else max(0, max_price_wei - spent_wei)
        answer, charged_wei, provider, receipt = _order(client, model.card.model, question, left_wei)
        answers.append(answer)
        spent_wei += charged_wei
        providers.add(provider)
        receipts += receipt
    answered_s = time.monotonic()
    try:
        read = [question.read(answer) for question, answer in zip(asked, answers, strict=True)]
    except (NotTheAnswer, NoCiphertext) as error:
        raise Failure(
            "a provider's answer isn't one", str(error), "its receipt convicts it", Exit.UNTRUE
        ) from None
    values = np.vstack([it.values for it in read])
    return Inferred(
        model=model.card.name, address=hex0x(model.address), outputs=shape.outputs, values=values.tolist(),
        answers=[_said(shape, row) for row in values], error=_error(model, shape, rows, np.vstack([it.raw for it in read])),
        requests=len(asked), sent_bytes=sum(len(part) for it in asked for part in it.request.ciphertexts),
        received_bytes=sum(map(len, answers)), charged_wei=spent_wei, providers=sorted(providers), receipts=receipts,
        encrypt_s=round(encrypted_s - began_s, 3), wait_s=round(answered_s - encrypted_s, 3),
        decrypt_s=round(time.monotonic() - answered_s, 3),
    )  # fmt: skip


def _order(
    client: "Client", subject: str, question: "Question", most_wei: int | None
) -> tuple[bytes, int, str, list[str]]:
    """(answer, charged, provider, its receipt)."""
    from clusterai.sdk.vaultshapes import Ordered, OrderRequest

    request = base64.b64encode(question.request.canonical()).decode()
    body = OrderRequest(kind="sealed", request=request, max_price_wei=most_wei)
    done = client.told("POST", f"/v1/clusterai/orders/{subject}", Ordered, json=body)
    receipt = [] if done.receipt is None else [done.receipt.id]
    return base64.b64decode(done.answer, validate=True), done.charged_wei, done.provider, receipt


def _said(shape: "Shape", row: Floats) -> str:
    match shape.link:
        case "softmax":
            return shape.outputs[int(row.argmax())]
        case "logistic":
            return shape.outputs[0] if row[0] > 0.5 else f"not {shape.outputs[0]}"
        case "identity":
            return " ".join(f"{it:.6g}" for it in row)


def _error(model: "StoredModel", shape: "Shape", rows: Floats, raw: Floats) -> float | None:
    """How far what was decrypted is from the model in the clear, where this machine has its weights."""
    from clusterai.work.sealed.core.model import plain_outputs, read_weights

    if not model.paths["weights.json"].is_file():
        return None
    matrix = read_weights(model.paths["weights.json"].read_bytes(), shape)
    return float(np.abs(raw - plain_outputs(shape, matrix, rows)).max())
