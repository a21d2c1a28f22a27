"""A server's certificate for 127.0.0.1, the authority that issued it, and the server's lines for TLS."""

from pathlib import Path

import trustme


def write_certificates(folder: Path) -> None:
    """Make an authority and a certificate: `ca.pem`, `cert.pem` and `key.pem` in a folder."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))


def tls_lines(folder: Path, port: int) -> list[str]:
    """Return the lines with which a server has that certificate on a port; a client may have one too."""
    return [
        f"tls-port {port}",
        f"tls-cert-file {folder}/cert.pem",
        f"tls-key-file {folder}/key.pem",
        f"tls-ca-cert-file {folder}/ca.pem",
        "tls-auth-clients optional",
    ]
