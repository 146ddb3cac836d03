"""Sign bundles and verify signatures, in the format of OpenSSF Model Signing 1.0. Needs the ``signing`` extra.

``model.sig`` is one of the bundle's files, in a folder as in a ``.hilum`` zip: a Sigstore bundle with a DSSE envelope
around an in-toto statement, which lists the SHA-256 of ``bundle.json`` and of every file that it names. Signatures are
ECDSA on P-256, P-384 or P-521. The command ``model_signing verify key`` verifies them as well, in a folder.

Format: https://github.com/sigstore/model-transparency; https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hilum.bundle.container import DAMAGED, SIGNATURE
from hilum.errors import BundleError, ConfigError, MissingExtraError, extra_hint
from hilum.storage import sha256_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

_BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_OPENSSL = {
    "private": "openssl ecparam -name prime256v1 -genkey -noout -out key.pem",
    "public": "openssl ec -in key.pem -pubout -out key.pub",
}


def sign_files(files: Mapping[str, bytes], name: str, key: Path, password: bytes | None = None) -> bytes:
    """Return the content of ``model.sig`` for the files of a bundle.

    Args:
        files: Contents of the files, with ``bundle.json``.
        name: Name of the model.
        key: PEM file of a private key on P-256, P-384 or P-521.
        password: Password of the key; None if it has none.

    Raises:
        ConfigError: The key cannot be used.
        MissingExtraError: The ``signing`` extra is not installed.
    """
    private = _private_key(key, password)
    payload = json.dumps(_statement(name, files), indent=2).encode()
    signature = private.sign(_encoded(payload), _algorithm(private.curve))
    content = {
        "mediaType": _BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": _fingerprint(private.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return (json.dumps(content) + "\n").encode()


def verify_signature(signature: bytes | None, files: Mapping[str, bytes], key: Path, path: Path) -> None:
    """Check that a signature was made with a key, for these files.

    Args:
        signature: Content of ``model.sig``; None if the bundle has none.
        files: Contents of the files that are used, with ``bundle.json``.
        key: PEM file of the public key.
        path: Path of the bundle, for messages.

    Raises:
        BundleError: There is no signature, it is of another key or format, or a file is not the one that was signed.
        ConfigError: The key cannot be used.
        MissingExtraError: The ``signing`` extra is not installed.
    """
    public = _public_key(key)
    if signature is None:
        raise BundleError(f"The bundle '{path}' has no signature.", hint="Sign it: hilum sign BUNDLE --key KEY")
    try:
        payload = _verified_payload(json.loads(signature), public, path)
        signed = _signed_digests(json.loads(payload))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise BundleError(f"{SIGNATURE} in '{path}' is not a signature of a model: {error}.", hint=DAMAGED) from error
    for name, content in files.items():
        if signed.get(name) != sha256_bytes(content):
            what = "was changed after signing" if name in signed else "was not signed"
            raise BundleError(f"{name} in '{path}' {what}.", hint="Get the bundle again from whoever signed it.")


def signer_of(signature: bytes) -> str:
    """Return the fingerprint of the key that a signature names, without verifying it; empty if it names none."""
    try:
        return str(json.loads(signature)["verificationMaterial"]["publicKey"]["hint"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _statement(name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    digests = {file: sha256_bytes(content) for file, content in sorted(files.items())}
    return {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _root_digest(list(digests.values()))}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE],
            },
            "resources": [
                {"name": file, "algorithm": "sha256", "digest": digest} for file, digest in digests.items()
            ],
        },
    }  # fmt: skip


def _verified_payload(bundle: Mapping[str, Any], public: ec.EllipticCurvePublicKey, path: Path) -> bytes:
    """Return the payload of an envelope, whose signature is valid.

    Raises:
        BundleError: It is not.
        ValueError, KeyError, TypeError, IndexError: The format is another one.
    """
    from cryptography.exceptions import InvalidSignature

    envelope = bundle["dsseEnvelope"]
    _check_equal("media type", bundle["mediaType"], _BUNDLE_TYPE)
    _check_equal("payload type", envelope["payloadType"], _PAYLOAD_TYPE)
    payload = base64.b64decode(envelope["payload"], validate=True)
    signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
    try:
        public.verify(signature, _encoded(payload), _algorithm(public.curve))
    except InvalidSignature as error:
        raise BundleError(
            f"The signature of '{path}' is not of the key {_fingerprint(public)[:12]}, or was changed.",
            hint="Get key and bundle again from whoever signed it.",
        ) from error
    return payload


def _signed_digests(statement: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each file that a statement names.

    Raises:
        ValueError, KeyError, TypeError, IndexError: The statement is of another kind.
    """
    _check_equal("statement", statement["_type"], _STATEMENT_TYPE)
    _check_equal("predicate", statement["predicateType"], _PREDICATE_TYPE)
    _check_equal("method", statement["predicate"]["serialization"]["method"], "files")
    resources = statement["predicate"]["resources"]
    for resource in resources:
        _check_equal("hash", resource["algorithm"], "sha256")
    root = _root_digest([resource["digest"] for resource in resources])
    _check_equal("digest of all files", statement["subject"][0]["digest"]["sha256"], root)
    return {str(resource["name"]): str(resource["digest"]) for resource in resources}


def _check_equal(what: str, found: object, expected: str) -> None:
    if found != expected:
        raise ValueError(f"its {what} is {found!r}, not {expected!r}")


def _root_digest(digests: list[str]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()


def _encoded(payload: bytes) -> bytes:
    """Return the bytes that are signed: DSSE's pre-authentication encoding."""
    return f"DSSEv1 {len(_PAYLOAD_TYPE)} {_PAYLOAD_TYPE} {len(payload)} ".encode() + payload


def _algorithm(curve: ec.EllipticCurve) -> ec.ECDSA:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.ECDSA({256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[curve.key_size])


def _fingerprint(public: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key as PEM, which signatures name it by."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return sha256_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _private_key(path: Path, password: bytes | None) -> ec.EllipticCurvePrivateKey:
    content = _read_key(path)
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(content, password)
    except TypeError as error:  # a password that is missing, or not needed
        if password is None:
            raise ConfigError(
                f"The key '{path}' has a password.", hint="Set the environment variable HILUM_KEY_PASSWORD to it."
            ) from error
        raise ConfigError(f"The key '{path}' has no password.", hint="Unset HILUM_KEY_PASSWORD.") from error
    except ValueError as error:
        raise _unusable(path, "private", "it is not a private key in PEM format, or the password is wrong") from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise _unusable(path, "private", "it is of another type")
    return key


def _public_key(path: Path) -> ec.EllipticCurvePublicKey:
    content = _read_key(path)
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(content)
    except ValueError as error:
        raise _unusable(path, "public", "it is not a public key in PEM format") from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise _unusable(path, "public", "it is of another type")
    return key


def _read_key(path: Path) -> bytes:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "Signatures need cryptography, which is not installed.", hint=extra_hint("signing")
        ) from error
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"Cannot read the key '{path}': {error.strerror or error}.") from error


def _unusable(path: Path, kind: Literal["private", "public"], why: str) -> ConfigError:
    hint = f"Expected a key on P-256, P-384 or P-521: {_OPENSSL[kind]}"
    return ConfigError(f"'{path}' cannot be used as a {kind} key: {why}.", hint=hint)
