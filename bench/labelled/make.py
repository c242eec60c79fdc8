"""Write `generated.jsonl`: templates filled by Faker, with the place of each thing that was filled in.

    pip install faker==40.54.0 && python -m bench.labelled.make

One line each: {"text", "spans": [[first, end, kind], …]}. The result is committed, so that nobody needs Faker to measure. Names are
of six languages in English sentences; all people, numbers and addresses are made up.
"""

import json
import random
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COUNT = 400

TEMPLATES = [
    "{PERSON} was admitted on {DATE} with chest pain and discharged two days later.",
    "Please call {PERSON} at {PHONE} before noon.",
    "Send the invoice to {EMAIL}; the old address {EMAIL} bounces.",
    "My name is {PERSON}, I live at {ADDRESS} and my number is {PHONE}.",
    "The patient ({PERSON}, born {DATE}) has been under the care of Dr. {PERSON} since March.",
    "Payment by card {CARD} was declined, please use IBAN {IBAN} instead.",
    "Her social security number is {SSN}.",
    "Login from {IP} as {EMAIL} failed three times.",
    "{PERSON} and {PERSON} moved to {CITY} last year.",
    "See {URL} for the profile of {PERSON}.",
    "From: {PERSON} <{EMAIL}>\nTo: {PERSON} <{EMAIL}>\nSubject: appointment\n\nDear {PERSON}, you are expected on {DATE}.",
    "name={PERSON};phone={PHONE};city={CITY}",
    '{{"patient": "{PERSON}", "dob": "{DATE}", "ssn": "{SSN}"}}',
    "Deliver to {PERSON}, {ADDRESS}. Ring twice.",
    "Witness {PERSON} saw the car near {CITY} at about nine.",
    "IP {IP} belongs to a router in {CITY}.",
    "I spoke with {PERSON} today; she prefers {EMAIL} over {PHONE}.",
    "Transfer 200 to {IBAN} ({PERSON}).",
    "Mr {PERSON} said the results would come by {DATE}.",
    "The scan of {PERSON} shows no change; compare with the one of {DATE}.",
    "Nothing in this sentence is personal, and the dose stays at 50 mg twice daily.",
    "The committee approved the budget and adjourned without further remarks.",
    "Error 404 on line 1234567890 of build 2.14.3-rc1.",
    "Blood pressure 120/80, heart rate 72, temperature 36.8.",
]


def main() -> None:
    from faker import Faker  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

    locales = ["en_US", "en_GB", "de_DE", "es_ES", "fr_FR", "en_IN"]
    fakers: list[Any] = [Faker(it) for it in locales]
    english: Any = fakers[0]
    for number, it in enumerate(fakers):
        it.seed_instance(number)
    draw = random.Random(5)

    def value(kind: str) -> str:
        any_: Any = draw.choice(fakers)
        match kind:
            case "PERSON":
                return f"{any_.first_name()} {any_.last_name()}"
            case "EMAIL":
                return str(any_.ascii_safe_email())
            case "PHONE":
                return str(draw.choice(fakers[:2]).phone_number())
            case "ADDRESS":
                return str(draw.choice(fakers[:2]).address()).replace("\n", ", ")
            case "CITY":
                return str(any_.city())
            case "DATE":
                return str(
                    english.date(pattern=draw.choice(["%Y-%m-%d", "%m/%d/%Y", "%d %B %Y", "%b %d, %Y"]))
                )
            case "SSN":
                return str(english.ssn())
            case "CARD":
                return str(english.credit_card_number())
            case "IBAN":
                return str(draw.choice(fakers[1:4]).iban())
            case "IP":
                return str(draw.choice([english.ipv4_public(), english.ipv6()]))
            case "URL":
                return str(any_.url()) + "people/" + str(any_.user_name())
            case _:
                raise AssertionError(kind)

    with (HERE / "generated.jsonl").open("w") as file:
        for number in range(COUNT):
            template = TEMPLATES[number % len(TEMPLATES)]
            text, spans, at = "", list[list[Any]](), 0
            for found in re.finditer(r"\{\{|\}\}|\{([A-Z]+)\}", template):
                text += template[at : found.start()]
                at = found.end()
                if found[1] is None:
                    text += found[0][0]
                    continue
                filled = value(found[1])
                spans.append([len(text), len(text) + len(filled), found[1]])
                text += filled
            text += template[at:]
            file.write(json.dumps({"text": text, "spans": spans}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
