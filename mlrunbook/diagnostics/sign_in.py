"""How people sign in to the console: where browsers reach it, the provider, a proxy that is trusted."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import httpx

from mlrunbook.diagnostics.doctor import CALL_S, Ask, Finding, fail, ok, warn

CALLBACK = "/login/oidc/callback"
WIDEST = 2**16  # addresses of a network that one proxy may have


def sign_in(ask: Ask) -> Iterator[Finding]:
    yield _public_url(ask.settings.public_url)
    if ask.settings.oidc_issuer:
        yield from _provider(ask)
    if (proxy := ask.policy.console.proxy) is not None:
        wide = [one for one in proxy.networks if ip_network(one).num_addresses > WIDEST]
        if wide:
            said = f"whoever comes from {', '.join(wide)} may say who they are"
            yield fail("sign-in by proxy", said, "name the proxy's own addresses in console.proxy.networks")
        else:
            yield ok("sign-in by proxy", f"the header {proxy.person_header} counts from {', '.join(proxy.networks)}")


def _public_url(url: str | None) -> Finding:
    name = "console address"
    if not url:
        said = "MLRUNBOOK_PUBLIC_URL is not set: nobody can sign in at a provider, and links lead to this machine"
        return warn(name, said, "set it to where browsers reach the gateway, such as https://incidents.example.com")
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_here(parts.hostname or ""):
        said = f"{url} is not encrypted: who listens on the way reads tokens and sessions"
        return fail(name, said, "put TLS before the gateway and write https://")
    return ok(name, f"browsers come to {url}")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _provider(ask: Ask) -> Iterator[Finding]:
    config, name = ask.settings, "sign-in provider"
    issuer = str(config.oidc_issuer).rstrip("/")
    needed = {"MLRUNBOOK_OIDC_CLIENT_ID": config.oidc_client_id, "MLRUNBOOK_PUBLIC_URL": config.public_url}
    missing = [variable for variable, given in needed.items() if not given]
    if missing:
        yield fail(name, f"{issuer} is named, and nobody can sign in there", f"set {' and '.join(missing)}")
        return
    try:
        with httpx.Client(timeout=CALL_S, trust_env=False) as http:
            answer = http.get(f"{issuer}/.well-known/openid-configuration", follow_redirects=True)
            known = answer.json() if answer.is_success else None
            if not isinstance(known, dict):
                yield fail(name, f"{issuer} answers {answer.status_code} and no configuration", "correct MLRUNBOOK_OIDC_ISSUER")
                return
            if (wrong := _unlike(known, issuer)) is not None:
                yield wrong
                return
            yield _redirect(http, known, str(config.oidc_client_id), str(config.public_url).rstrip("/") + CALLBACK)
    except (httpx.HTTPError, ValueError) as error:
        yield fail(name, f"{issuer} does not answer ({type(error).__name__})", "start it, or correct MLRUNBOOK_OIDC_ISSUER")
        return
    if not ask.policy.console.groups:
        yield warn(
            "sign-in groups", "policy names none, so nobody from the provider gets in", "add groups under console.groups in runbook.yaml"
        )


def _unlike(known: dict[str, Any], issuer: str) -> Finding | None:
    if (calls_itself := str(known.get("issuer", "")).rstrip("/")) != issuer:
        return fail("sign-in provider", f"calls itself {calls_itself}, not {issuer}", "set MLRUNBOOK_OIDC_ISSUER to what it calls itself")
    if not known.get("authorization_endpoint") or not known.get("token_endpoint"):
        return fail("sign-in provider", f"{issuer} offers no authorization code flow", "turn it on at the provider")
    return None


def _redirect(http: httpx.Client, known: dict[str, Any], client_id: str, back: str) -> Finding:
    """Asks as a browser would, and goes no further than the provider's first page."""
    asked = {"response_type": "code", "client_id": client_id, "redirect_uri": back, "scope": "openid", "state": "doctor", "nonce": "doctor"}
    asked |= {"code_challenge_method": "S256", "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}
    answer = http.get(str(known["authorization_endpoint"]), params=asked)
    if answer.status_code >= 400 or (answer.headers.get("location", "").startswith(back) and "error=" in answer.headers["location"]):
        fix = f"register {back} as redirect URI of the client {client_id} there"
        return fail("sign-in provider", f"does not take our client or its redirect URI ({answer.status_code})", fix)
    return ok("sign-in provider", f"{known['issuer']} answers and takes the redirect URI {back}")
