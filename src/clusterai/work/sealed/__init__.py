"""Inference on inputs that nobody but their owner can read: encrypted by CKKS, answered encrypted, checked encrypted.

An evaluation is exact arithmetic on ciphertexts, so a check is doing it again and comparing bytes. The room refuses models deeper than one
multiplication (linear, logistic, one hidden layer of squares): those need neither evaluation keys nor rotations, so an order holds
everything that provider and auditor need. It says nothing about who may know the weights: providers and auditors do.

    spec.py             a request       core/security.py  rings of 128 bits           core/model.py    shape, weights
    price.py, check.py                  core/wire.py      strangers' ciphertexts      core/layout.py   where numbers lie
    adapters/ckks.py    SEAL            adapters/ckks_engine.py  the provider         adapters/requester.py  who asks
"""

from clusterai.work.kind import Kind
from clusterai.work.request import OutOfRange
from clusterai.work.sealed.check import check, judge_answer, spell, wrong
from clusterai.work.sealed.price import cap_wei, recount
from clusterai.work.sealed.spec import Sealed, decode_sealed

KIND = Kind(
    name="sealed",
    decode=decode_sealed,
    cap_wei=cap_wei,
    recount=recount,
    check=check,
    judge=judge_answer,
    wrong=wrong,
    serves="sealed",
    engines="clusterai.work.sealed.adapters.ckks_engine",
    spell=spell,
    gap_unit="ciphertexts",
    packed=True,
)

__all__ = ["KIND", "OutOfRange", "Sealed", "decode_sealed"]
