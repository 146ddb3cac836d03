"""Signatures of bundles: in the format of OpenSSF Model Signing, over every file that is used."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from hilum.bundle.bundle import MODEL_CARD, ONNX_MODEL, WEIGHTS, Manifest, load_bundle, sign_bundle, write_bundle
from hilum.bundle.container import MANIFEST, SIGNATURE, read_files, write_files
from hilum.bundle.signing import signer_of, verify_signature
from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import BundleError, ConfigError, HilumError

FILES = {ONNX_MODEL: bytes(range(256)), WEIGHTS: b"weights" * 30, MODEL_CARD: b"# A model"}

# Made by `model_signing sign key model --private_key key.pem --signature model/model.sig`, model-signing 1.1.1.
FOREIGN_FILES = {"bundle.json": b"a manifest\n", "model.onnx": b"weights\n"}
FOREIGN_KEY = b"""\
-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEyHGWAgXFMWiR2+Ox4dRJQngTXivhT+pw
k1gDhJ4Rh1nC2T5wpiZwgF6CVC4YPMJGISDuereKwVXrQEYzgiMA0fgmLal3ApTA
G2YLVcPoo/hx+RBaE8Qe6AXnBMb8pALS
-----END PUBLIC KEY-----
"""
FOREIGN_PAYLOAD = (
    "ewogICJfdHlwZSI6ICJodHRwczovL2luLXRvdG8uaW8vU3RhdGVtZW50L3YxIiwKICAic3ViamVjdCI6IFsKICAgIHsKICAgICAgIm5hbWUiOi"
    "AibW9kZWwiLAogICAgICAiZGlnZXN0IjogewogICAgICAgICJzaGEyNTYiOiAiMmY5YThhNTQ1NDBlNDExNmI0MDQ0MmI0M2UxYjgwMTczYmZi"
    "MTcxNzI5MTRjYWQxNGU5NTMwN2ViNDFhOTg4YiIKICAgICAgfQogICAgfQogIF0sCiAgInByZWRpY2F0ZVR5cGUiOiAiaHR0cHM6Ly9tb2RlbF"
    "9zaWduaW5nL3NpZ25hdHVyZS92MS4wIiwKICAicHJlZGljYXRlIjogewogICAgInNlcmlhbGl6YXRpb24iOiB7CiAgICAgICJtZXRob2QiOiAi"
    "ZmlsZXMiLAogICAgICAiaGFzaF90eXBlIjogInNoYTI1NiIsCiAgICAgICJpZ25vcmVfcGF0aHMiOiBbCiAgICAgICAgIi5naXRpZ25vcmUiLA"
    "ogICAgICAgICIuZ2l0YXR0cmlidXRlcyIsCiAgICAgICAgIi5naXQiLAogICAgICAgICJtb2RlbC5zaWciLAogICAgICAgICIuZ2l0aHViIgog"
    "ICAgICBdLAogICAgICAiYWxsb3dfc3ltbGlua3MiOiBmYWxzZQogICAgfSwKICAgICJyZXNvdXJjZXMiOiBbCiAgICAgIHsKICAgICAgICAiZG"
    "lnZXN0IjogIjYyZWU0ZjhhYTYxZDE1ZDAxYTc5NDUwMTQzYjY4YjIwZTY3YTU3YTQ1YzYyN2M2YjRkOGZkMmE3YmVjMzNjMWMiLAogICAgICAg"
    "ICJuYW1lIjogImJ1bmRsZS5qc29uIiwKICAgICAgICAiYWxnb3JpdGhtIjogInNoYTI1NiIKICAgICAgfSwKICAgICAgewogICAgICAgICJkaW"
    "dlc3QiOiAiMWI0NjVmYTZiNmJjYmMwNmEzMTk5ZTNkMmQ4YWVjMzVkMzc0OTRhNzEyZjg4OGI2ZDU1MzY2ODRkZDg5ZDBmMCIsCiAgICAgICAg"
    "Im5hbWUiOiAibW9kZWwub25ueCIsCiAgICAgICAgImFsZ29yaXRobSI6ICJzaGEyNTYiCiAgICAgIH0KICAgIF0KICB9Cn0="
)
FOREIGN = {
    "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
    "verificationMaterial": {
        "publicKey": {"hint": "138341c64f87692ba0950b89dfb03abbf2a927d8cacb72c0a78abee5505775da"},
        "tlogEntries": [],
    },
    "dsseEnvelope": {
        "payload": FOREIGN_PAYLOAD,
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [
            {
                "sig": (
                    "MGQCMHoz/60BG+jCaF/o+RElOcgFX0v8xCPpEf/jaRYvwQS0cXoRsqp7NDZdezK+xgI2pAIwEGuOg/ZeZAl9lcvFkWNz9qqHre/2JYaceEaBco"
                    "2vplKNU1OgjV8k7gPvAAi+IjBk"
                ),
                "keyid": "",
            }
        ],
    },
}


def keys(folder: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> Path:
    """Write ``<folder>/key.pem`` and ``key.pub``."""
    folder.mkdir(parents=True, exist_ok=True)
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub").write_bytes(public)
    return folder


@pytest.fixture(params=["bundle", "bundle.hilum"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A bundle, as a folder and as a file."""
    manifest = Manifest(
        name="tiny", class_names=("a", "b"), preprocess=PreprocessSpec(size=64), model=ModelConfig(name="unet")
    )
    write_bundle(tmp_path / str(request.param), manifest, FILES)
    return tmp_path / str(request.param)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    return keys(tmp_path / "keys", ec.generate_private_key(ec.SECP256R1()))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
@pytest.mark.parametrize("password", [None, b"secret"])
def test_a_signed_bundle_is_verified(
    path: Path, tmp_path: Path, curve: ec.EllipticCurve, password: bytes | None
) -> None:
    pair = keys(tmp_path / "keys", ec.generate_private_key(curve), password)
    before = load_bundle(path)
    assert before.signature is None
    returned = sign_bundle(path, pair / "key.pem", password)
    opened = load_bundle(path, verify_key=pair / "key.pub")
    assert returned.signature is not None
    assert opened.signature == returned.signature
    assert returned.manifest == before.manifest
    assert {name: returned.read(name) for name in FILES} == FILES
    assert opened.manifest == before.manifest
    assert {name: opened.read(name) for name in FILES} == FILES
    sign_bundle(path, pair / "key.pem", password)  # replaces it
    load_bundle(path, verify_key=pair / "key.pub")


def test_the_other_form_of_a_signed_bundle_is_verified(path: Path, pair: Path, tmp_path: Path) -> None:
    sign_bundle(path, pair / "key.pem")
    contents = read_files(path, [*FILES, MANIFEST, SIGNATURE])
    other = tmp_path / ("other.hilum" if path.is_dir() else "other")
    write_files(other, contents)
    load_bundle(other, verify_key=pair / "key.pub")


def test_an_unsigned_bundle_and_another_key_are_refused(path: Path, pair: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no signature"):
        load_bundle(path, verify_key=pair / "key.pub")
    sign_bundle(path, pair / "key.pem")
    other = keys(tmp_path / "others", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(BundleError, match="not of the key"):
        load_bundle(path, verify_key=other / "key.pub")


@pytest.mark.parametrize("changed", [ONNX_MODEL, MODEL_CARD])
def test_a_file_changed_after_signing_is_refused_though_the_bundle_is_sealed_again(
    path: Path, pair: Path, changed: str
) -> None:
    signature = sign_bundle(path, pair / "key.pem").signature
    assert signature is not None
    files = {**FILES, changed: b"another"}
    manifest = load_bundle(path).manifest.sealed(files)
    write_files(path, {**files, MANIFEST: manifest.content(), SIGNATURE: signature})
    load_bundle(path)  # sealed correctly: without the key nothing is wrong
    with pytest.raises(BundleError, match="changed after signing"):
        load_bundle(path, verify_key=pair / "key.pub")


def test_a_file_added_after_signing_is_refused(path: Path, pair: Path) -> None:
    opened = sign_bundle(path, pair / "key.pem")
    files = {**read_files(path, [*FILES, MANIFEST]), "model-int8.onnx": b"new"}
    with pytest.raises(BundleError, match=r"model-int8\.onnx .* was not signed"):
        verify_signature(opened.signature, files, pair / "key.pub", path)


def test_a_bundle_written_again_has_no_signature(path: Path, pair: Path) -> None:
    manifest = sign_bundle(path, pair / "key.pem").manifest
    write_bundle(path, manifest, FILES)
    assert load_bundle(path).signature is None


def test_signatures_of_model_signing_are_verified(tmp_path: Path) -> None:
    key = tmp_path / "key.pub"
    key.write_bytes(FOREIGN_KEY)
    signature = json.dumps(FOREIGN).encode()
    verify_signature(signature, FOREIGN_FILES, key, tmp_path)
    assert signer_of(signature) == FOREIGN["verificationMaterial"]["publicKey"]["hint"]  # type: ignore[index]
    for name in FOREIGN_FILES:
        with pytest.raises(BundleError, match="changed after signing"):
            verify_signature(signature, {**FOREIGN_FILES, name: b"x"}, key, tmp_path)


def signed(statement: dict[str, Any], key: ec.EllipticCurvePrivateKey, kind: str) -> bytes:
    """The content of ``model.sig`` with any statement, under a valid signature."""
    payload, kind_signed = json.dumps(statement).encode(), FOREIGN["dsseEnvelope"]["payloadType"]  # type: ignore[index]
    encoded = f"DSSEv1 {len(kind_signed)} {kind_signed} {len(payload)} ".encode() + payload
    signature = key.sign(encoded, ec.ECDSA(SHA256()))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    return json.dumps({**FOREIGN, "dsseEnvelope": envelope}).encode()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((), None),
        (("_type",), "https://in-toto.io/Statement/v0.1"),
        (("predicateType",), "https://slsa.dev/provenance/v1"),
        (("predicate", "serialization", "method"), "shards"),
        (("predicate", "resources", 0, "algorithm"), "sha1"),
        (("subject", 0, "digest", "sha256"), "0" * 64),
        (("payloadType",), "text/plain"),
    ],
)
def test_statements_of_another_kind_are_refused_though_the_key_signed_them(
    tmp_path: Path, place: tuple[str | int, ...], value: str | None
) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    public = keys(tmp_path, private) / "key.pub"
    statement, kind = json.loads(base64.b64decode(FOREIGN_PAYLOAD)), "application/vnd.in-toto+json"
    if place == ("payloadType",):
        kind = str(value)
    elif place:
        inner = statement
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
    signature = signed(statement, private, kind)
    if not place:  # the others are refused for what was changed alone
        verify_signature(signature, FOREIGN_FILES, public, tmp_path)
        return
    with pytest.raises(BundleError, match="not a signature of a model"):
        verify_signature(signature, FOREIGN_FILES, public, tmp_path)


@pytest.mark.parametrize("position", range(0, 1400, 97))
def test_a_changed_signature_is_an_error_of_the_bundle(tmp_path: Path, position: int) -> None:
    key = tmp_path / "key.pub"
    key.write_bytes(FOREIGN_KEY)
    payload = base64.b64decode(FOREIGN_PAYLOAD)
    position %= len(payload)
    changed = payload[:position] + bytes([payload[position] ^ 1]) + payload[position + 1 :]
    envelope = {**FOREIGN["dsseEnvelope"], "payload": base64.b64encode(changed).decode()}  # type: ignore[dict-item]
    with pytest.raises(BundleError):
        verify_signature(json.dumps({**FOREIGN, "dsseEnvelope": envelope}).encode(), FOREIGN_FILES, key, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"[]", b"{}", b"1", b"null", b"[" * 100_000, b'{"dsseEnvelope": []}',
        json.dumps({**FOREIGN, "mediaType": "text/plain"}).encode(),
        json.dumps({**FOREIGN, "dsseEnvelope": {**FOREIGN["dsseEnvelope"], "signatures": []}}).encode(),
        json.dumps({**FOREIGN, "dsseEnvelope": {**FOREIGN["dsseEnvelope"], "signatures": [{"sig": "é"}]}}).encode(),
        json.dumps({**FOREIGN, "dsseEnvelope": {**FOREIGN["dsseEnvelope"], "payload": 7}}).encode(),
    ],
)  # fmt: skip
def test_what_is_not_a_signature_is_an_error_of_the_bundle(tmp_path: Path, content: bytes) -> None:
    key = tmp_path / "key.pub"
    key.write_bytes(FOREIGN_KEY)
    with pytest.raises(BundleError):
        verify_signature(content, FOREIGN_FILES, key, tmp_path)
    assert isinstance(signer_of(content), str)


@pytest.mark.parametrize(
    "kind", ["none", "text", "RSA", "secp256k1", "wrong password", "no password", "needless password"]
)
def test_keys_that_cannot_be_used_are_named(path: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "keys"
    password: bytes | None = None
    if kind == "text":
        folder.mkdir()
        (folder / "key.pem").write_text("key")
        (folder / "key.pub").write_text("key")
    elif kind == "RSA":
        keys(folder, rsa.generate_private_key(65537, 2048))
    elif kind == "secp256k1":
        keys(folder, ec.generate_private_key(ec.SECP256K1()))
    elif kind == "needless password":
        keys(folder, ec.generate_private_key(ec.SECP256R1()))
        password = b"secret"
    elif kind != "none":
        keys(folder, ec.generate_private_key(ec.SECP256R1()), b"secret")
        password = b"another" if kind == "wrong password" else None
    before = {file: file.read_bytes() for file in [path, *path.rglob("*")] if file.is_file()}
    with pytest.raises(ConfigError):
        sign_bundle(path, folder / "key.pem", password)
    assert {file: file.read_bytes() for file in [path, *path.rglob("*")] if file.is_file()} == before
    if kind in ("none", "text", "RSA", "secp256k1"):
        with pytest.raises(ConfigError):
            load_bundle(path, verify_key=folder / "key.pub")


def test_without_cryptography_a_hint_names_the_extra(path: Path, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for call in (lambda: sign_bundle(path, pair / "key.pem"), lambda: load_bundle(path, verify_key=pair / "key.pub")):
        with pytest.raises(HilumError) as error:
            call()
        assert "[signing]" in error.value.hint


def test_the_commands_sign_and_verify(
    hilum: Callable[..., str], phantoms: Path, tmp_path: Path, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hilum.bundle.default import resolve_bundle

    bundle = tmp_path / "model"
    shutil.copytree(resolve_bundle(), bundle)
    lines = {line.split()[0]: line for line in hilum("info", bundle).splitlines() if line.startswith("  ")}
    assert lines["signature"].split()[1:] == ["none"]
    assert "no signature" in hilum("info", bundle, "--verify-key", pair / "key.pub", code=2)
    printed = hilum("sign", bundle, "--key", pair / "key.pem")
    fingerprint = signer_of((bundle / SIGNATURE).read_bytes())[:12]
    assert fingerprint in printed
    assert f"{fingerprint}, not verified" in hilum("info", bundle)
    assert f"{fingerprint}, valid" in hilum("info", bundle, "--verify-key", pair / "key.pub")
    monkeypatch.setenv(
        "HILUM_VERIFY_KEY", str(keys(tmp_path / "other", ec.generate_private_key(ec.SECP256R1())) / "key.pub")
    )
    assert "not of the key" in hilum("predict", phantoms, "--bundle", bundle, code=2)
    assert "not of the key" in hilum("serve", "--port", "0", "--bundle", bundle, code=2)
