"""How much a verifiable job's segment may begin with.

Who is drawn to audit a segment, and the whole panel if one says that nothing is served, fetch from the provider what the segment begins with: state,
inputs and image. What isn't handed over in half of an auditor's time is looked for elsewhere, and then it is withheld, whoever's line it is. So a provider
stops at a job that carries more than its own line can hand over in so long, before it commits to it: the work is lost then, and the stake isn't.
"""

from clusterai.protocol.units import show_size


def too_much(segment: int, size_bytes: int, line_bytes_s: int, audit_s: int) -> str:
    """Why it isn't committed to, and what to change; nothing where it can be handed over.

    Args:
        segment: from 1.
        size_bytes: of all that it begins with.
        line_bytes_s: what this machine hands over in a second.
        audit_s: an auditor's time to begin.
    """
    most = line_bytes_s * audit_s // 2
    if size_bytes <= most:
        return ""
    return (
        f"segment {segment} begins with {show_size(size_bytes)}, and this machine can hand {show_size(most)} to an auditor in half of its {audit_s} s: "
        "carry less from segment to segment, or take class: unverified"
    )
