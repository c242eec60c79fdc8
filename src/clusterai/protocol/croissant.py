"""What a data set says of itself, for machines: Croissant 1.0, which is JSON-LD. Public sets and vaults are described by the same words.

Whatever stands in it is its publisher's word. What only we need stands under `clusterai`, as a JSON literal of JSON-LD, so that other readers
of Croissant pass it over.

Source: Croissant 1.0, mlcommons.org/croissant/1.0.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
    "clusterai": {"@id": "https://schema.org/additionalProperty", "@type": "@json"},
}

ColumnType = Literal["sc:Text", "sc:Integer", "sc:Float", "sc:Boolean", "sc:Date"]


class About(msgspec.Struct, frozen=True):
    """What its publisher says of a data set."""

    name: str
    title: str = ""
    description: str = ""
    licence: str = ""
    """SPDX"""
    creators: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    url: str = ""
    cite: str = ""
    version: str = "1.0.0"
    personal: str = ""
    """what it says of personal data in it, and how that was treated"""


class FileObject(msgspec.Struct, frozen=True):
    """A file that can be fetched. `size` in bytes, where it is said."""

    path: str
    url: str
    media: str
    sha256: str
    size: int | None = None
    description: str = ""


class Field(msgspec.Struct, frozen=True):
    name: str
    kind: ColumnType
    description: str = ""


class Records(msgspec.Struct, frozen=True):
    """The rows of a file with columns."""

    id: str
    name: str
    path: str
    fields: tuple[Field, ...]


def dataset(
    about: About, files: Sequence[FileObject] = (), records: Sequence[Records] = ()
) -> dict[str, Any]:
    card: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": about.name,
        "alternateName": about.title or about.name,
        "description": about.description or about.title or about.name,
        "license": about.licence or "unknown",
        "version": about.version,
        "distribution": [_file(file) for file in files],
        "recordSet": [_records(rows) for rows in records],
    }
    optional: dict[str, Any] = {
        "creator": [{"@type": "sc:Person", "name": name} for name in about.creators],
        "keywords": list(about.tags),
        "inLanguage": list(about.languages),
        "url": about.url,
        "citeAs": about.cite,
        "rai:personalSensitiveInformation": about.personal,
    }
    card.update({name: value for name, value in optional.items() if value})
    return card


def _file(file: FileObject) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.url,
        "encodingFormat": file.media,
        "sha256": file.sha256,
        **({} if file.size is None else {"contentSize": f"{file.size} B"}),
        **({"description": file.description} if file.description else {}),
    }


def _records(rows: Records) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": rows.id,
        "name": rows.name,
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{rows.id}/{field.name}",
                "name": field.name,
                "dataType": field.kind,
                "source": {"fileObject": {"@id": rows.path}, "extract": {"column": field.name}},
                **({"description": field.description} if field.description else {}),
            }
            for field in rows.fields
        ],
    }
