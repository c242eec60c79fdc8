"""Jobs: a program, its inputs and a seed go in, files come out, paid by a lease.

A job is cut into segments, and the digest of its state after each is committed to before anyone knows which one will be
run again. So the room promises only what a second run can show: WASM everywhere, native programs where image, seed and
clock are pinned. The rest it runs too, and calls it `unverified`. It refuses secrets in a spec (auditors read it), networks
in a job that is to be verified, and images named by tags.
"""

from clusterai.work.batch.spec import (
    AGAIN,
    DETERMINISM,
    Check,
    Image,
    JobArray,
    JobSpec,
    Resources,
    Root,
    SecretInSpec,
    Unfit,
    decode_array,
    decode_spec,
)

__all__ = [
    "AGAIN",
    "DETERMINISM",
    "Check",
    "Image",
    "JobArray",
    "JobSpec",
    "Resources",
    "Root",
    "SecretInSpec",
    "Unfit",
    "decode_array",
    "decode_spec",
]
