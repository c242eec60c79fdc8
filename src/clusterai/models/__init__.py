"""Models by content: a name may be anybody's, an address is one set of weights.

The room stores where weights lie, verifies them before every load, keeps what engines make of them, and turns chats into tokens
and tokens into text. It refuses weights that changed, tokenizers it doesn't know, and templates that run away.
Engines are not here: those that use this need none of them.
"""

from clusterai.models.core.card import Calibration, Card, Manifest
from clusterai.models.core.text import TextStream, Vocabulary
from clusterai.models.store import Altered, ModelStore, NoSuchModel, StoredModel
from clusterai.models.template import BadChat, ChatTemplate
from clusterai.models.tokenizer import ModelTokenizer, UnknownTokenizer

__all__ = [
    "Altered",
    "BadChat",
    "Calibration",
    "Card",
    "ChatTemplate",
    "Manifest",
    "ModelStore",
    "ModelTokenizer",
    "NoSuchModel",
    "StoredModel",
    "TextStream",
    "UnknownTokenizer",
    "Vocabulary",
]
