"""Whether an attestation speaks of the very bundle that it lies in."""

from dynalign_operator.provenance.attestation import AttestationError, IsSigned, build_statement, open_envelope
from dynalign_operator.provenance.bundle import Bundle


def check_attestation(bundle: Bundle, is_signed: IsSigned | None) -> tuple[list[str], list[str]]:
    """Problems and notes, as sentences.

    With `is_signed` the bundle must be signed. Raises AttestationError where it is not, or not with this key.
    """
    if bundle.attestation is None:
        if is_signed is not None:
            raise AttestationError("the bundle has no attestation; make it with `dynalign export-run --sign KEY`")
        return [], ["Not signed."]
    statement = open_envelope(bundle.attestation, is_signed)
    expected = build_statement(bundle.run, bundle.lineage, bundle.index, "")
    problems = [] if statement["subject"] == expected["subject"] else ["the attestation is that of another run"]
    if is_signed is None:
        return problems, ["Signed; name the public key with --key to check the signature."]
    return problems, ["Signed with this key."]
