"""Data sets by content: what a set is, who holds it, and how it comes whole from holders that nobody trusts.

A set's address is the digest of its manifest, so it can be asked of anyone: a server of ours, any web server, any bucket. The
room refuses every byte whose piece doesn't hash to what the address says, every path that could leave the folder that was
named, and every address that a stranger's listing has no business to make us dial. Who may read a set isn't its affair: of
a copy that is sold it moves the encrypted pieces.
"""

from clusterai.content.adapters.fetching import Fetched, NotWhole, fetch, fetch_manifest
from clusterai.content.adapters.folder import InTheWay, Landing, NotPublishable, scan, write_manifest
from clusterai.content.adapters.holding import Holder, HolderLimits
from clusterai.content.adapters.sources import HolderFault, Source, Web, open_source
from clusterai.content.core.manifest import BadManifest, File, Manifest, Piece, decode, encode
from clusterai.content.core.paths import BadPath
from clusterai.content.core.reach import Unreachable, base, listed
from clusterai.content.core.swarm import Evidence

__all__ = [
    "BadManifest",
    "BadPath",
    "Evidence",
    "Fetched",
    "File",
    "Holder",
    "HolderFault",
    "HolderLimits",
    "InTheWay",
    "Landing",
    "Manifest",
    "NotPublishable",
    "NotWhole",
    "Piece",
    "Source",
    "Unreachable",
    "Web",
    "base",
    "decode",
    "encode",
    "fetch",
    "fetch_manifest",
    "listed",
    "open_source",
    "scan",
    "write_manifest",
]
