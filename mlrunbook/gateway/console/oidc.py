"""OpenID Connect: the authorization code flow with PKCE, state and nonce, by authlib.

What the flow must remember on the way to the provider and back is in the store, under a secret that this browser alone has.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from fastapi import Request

from mlrunbook.domain.errors import Invalid, NotApproved, Transient
from mlrunbook.domain.policy.console import ConsolePolicy
from mlrunbook.store.console_sessions import Door, SignedIn

log = logging.getLogger(__name__)

CALLBACK = "/login/oidc/callback"
LEEWAY_S = 60  # between the provider's clock and ours
MAX_GROUPS = 2_000
VERIFIED = (True, "true")  # some providers send text; where the claim is missing, the provider vouches for all of its addresses
NO_FIT = "this way back from the provider was used already, took too long, or began in another browser"
AGAIN = "start again at the sign-in page"


@dataclass(frozen=True)
class Proven:
    """Who the provider says it is, and when they last proved it there (None: it does not say)."""

    of: SignedIn
    at: datetime | None


class Provider:
    def __init__(self, issuer: str, client_id: str, client_secret: str | None, public_url: str) -> None:
        self._issuer, self._client_id = issuer.rstrip("/"), client_id
        self._secret, self.public_url = client_secret, public_url.rstrip("/")
        self._known: Any = None

    async def begin(self, request: Request, *, max_age_s: int | None) -> tuple[str, dict[str, Any]]:
        """Where to send the browser, and what to remember until it is back. `max_age_s`: who was asked longer ago is asked again."""
        kept: dict[str, Any] = {}
        request.scope["session"] = kept
        asked = {} if max_age_s is None else {"max_age": max_age_s}
        with _Translated("the sign-in provider cannot be reached"):
            answer = await self._app().authorize_redirect(request, self.public_url + CALLBACK, **asked)
        return str(answer.headers["location"]), kept

    async def finish(self, request: Request, kept: dict[str, Any], policy: ConsolePolicy) -> Proven:
        """Who came back. NotApproved where the answer is not the one to our question, or not for us."""
        request.scope["session"] = kept
        with _Translated("the sign-in provider did not confirm who you are"):
            app = self._app()
            issuer = (await app.load_server_metadata()).get("issuer")
            if issuer is None or str(issuer).rstrip("/") != self._issuer:
                raise Transient(f"the sign-in provider calls itself {issuer!r}, not {self._issuer}: MLRUNBOOK_OIDC_ISSUER is wrong")
            options = {"iss": {"essential": True, "values": [issuer]}, "aud": {"essential": True, "values": [self._client_id]}}
            token = await app.authorize_access_token(request, leeway=LEEWAY_S, claims_options=options)
            claims = dict(token.get("userinfo") or {})
            if claims and not {policy.person_claim, policy.groups_claim} <= set(claims):
                more = dict(await app.userinfo(token=token))
                claims = {**more, **claims} if more.get("sub") == claims.get("sub") else claims
        return Proven(read(claims, policy, id_token=token.get("id_token")), _moment(claims.get("auth_time")))

    async def end_url(self, id_token: str | None, back: str) -> str | None:
        """Where the browser ends the provider's session too; None where there is no such place."""
        try:
            with _Translated("the sign-in provider cannot be reached"):
                where = (await self._app().load_server_metadata()).get("end_session_endpoint")
        except (Transient, NotApproved) as error:
            log.warning("signing out at the provider: %s", error)
            return None
        if not where:
            return None
        asked = {"client_id": self._client_id, "post_logout_redirect_uri": back} | ({"id_token_hint": id_token} if id_token else {})
        return f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}"

    def _app(self) -> Any:
        if self._known is None:
            from authlib.integrations.starlette_client import OAuth

            self._known = OAuth().register(
                "provider",
                client_id=self._client_id,
                client_secret=self._secret,
                server_metadata_url=f"{self._issuer}/.well-known/openid-configuration",
                client_kwargs={"scope": "openid profile email", "code_challenge_method": "S256", "timeout": 10.0},
            )
        return self._known


class _Translated:
    """The one place where what authlib, its HTTP client and its JWT library raise becomes ours."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, Transient):
            return
        from authlib.common.errors import AuthlibBaseError
        from joserfc.errors import JoseError

        # What stands in the error came by the browser: it goes to the log, not onto the page.
        log.warning("signing in at the provider: %.300r", error)
        if isinstance(error, AuthlibBaseError | JoseError | KeyError | ValueError):
            said = (
                "the way back from the provider does not fit the way there: it was used already, took too long, or began in another browser"
            )
            raise NotApproved(f"{said}; {AGAIN}") from error
        raise Transient(f"{self._what}: try again, or sign in with a token") from error


def read(claims: Mapping[str, Any], policy: ConsolePolicy, *, id_token: str | None) -> SignedIn:
    """Who that is, from the claims. Invalid where they do not say."""
    person = claims.get(policy.person_claim)
    if not isinstance(person, str) or not person.strip():
        raise Invalid(f"the provider does not say who you are: its answer has no claim {policy.person_claim!r} (console.person_claim)")
    if policy.person_claim == "email" and claims.get("email_verified", True) not in VERIFIED:
        raise NotApproved("the provider has not verified your e-mail address: verify it there, then sign in again")
    name, groups = claims.get(policy.name_claim), claims.get(policy.groups_claim)
    if isinstance(groups, str):
        groups = [groups]
    named = tuple(group for group in groups if isinstance(group, str))[:MAX_GROUPS] if isinstance(groups, list) else ()
    return SignedIn(Door.OIDC, person, name if isinstance(name, str) and name.strip() else person, groups=named, id_token=id_token)


def _moment(value: Any) -> datetime | None:
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**33
    return datetime.fromtimestamp(value, UTC) if is_number else None
