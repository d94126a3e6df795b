"""What a person has typed into a form: checked by the rules of the API's bodies, and kept when something is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Depends, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup, escape
from pydantic import BaseModel, ValidationError

from mlrunbook.base import web
from mlrunbook.base.wording import plainly
from mlrunbook.domain.errors import NotFound, RunbookError
from mlrunbook.gateway.console.rendering import page
from mlrunbook.gateway.console.route import redirect
from mlrunbook.gateway.console.visitor import Visitor
from mlrunbook.gateway.text import DROPPED

MAX_FIELDS = 50
LABELS = {
    "what": "What fixed it",
    "to": "Who has it from now on",
    "at": "When it was notified",
    "aware_at": "Since when it is known",
    "not_required": "Why no notification is required",
    "action": "What is to be done",
    "due_on": "The day it is due",
    "markdown": "The review",
    "description": "What is wrong",
    "type": "Kind",
    "status": "How it stands",
    "plan_digest": "The plan",
    "reason": "Your reason",
}
FORM = "application/x-www-form-urlencoded"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Typed:
    """The fields of a form by their names, as they were sent."""

    values: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    def kept(self, name: str) -> Markup:
        """The text for a field of several lines, as it was typed."""
        return lines(self[name])

    def into(self, model: type[M], **more: object) -> M:
        """The body that the API takes. What was left empty is left out."""
        said = {name: self[name] for name in model.model_fields if self[name].strip()}
        return model.model_validate({**said, **more})


NOTHING = Typed()


def lines(text: str) -> Markup:
    """Text of several lines, escaped and whole: for a text area, or below `white-space: pre-line`."""
    return Markup(escape(DROPPED.sub("", text)))  # noqa: S704  it is escaped


async def _typed(request: Request) -> Typed:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise HTTPException(415, f"this takes a form ({FORM})")
    body = (await request.body()).decode("utf-8", "replace")
    try:
        pairs = parse_qsl(body, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise HTTPException(400, f"a form has at most {MAX_FIELDS} fields") from error
    return Typed({name: value.replace("\r\n", "\n") for name, value in pairs})


TypedIn = Annotated[Typed, Depends(_typed)]


@dataclass(frozen=True)
class Problem:
    """Why nothing was done: a sentence, and what is wrong with which field."""

    status: int
    said: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)

    def label(self, name: str) -> str:
        return LABELS.get(name, name.replace("_", " ").capitalize())

    @classmethod
    def of(cls, error: ValidationError | RunbookError) -> Problem:
        if isinstance(error, ValidationError):
            return cls(422, fields={_snake(str(e["loc"][0])) if e["loc"] else "": plainly(e) for e in error.errors()})
        name = _snake(getattr(error, "field", None) or "")
        return cls(web.status_of(error), str(error), {name: ""} if name else {})


def answered(
    request: Request, act: Callable[[], str], again: Callable[[Problem], Response], *, passing: type[RunbookError] = NotFound
) -> Response:
    """Do it and go to the address that `act` returns; where it is refused, `again` shows the form with what was typed."""
    try:
        to = act()
    except passing:
        raise
    except (ValidationError, RunbookError) as error:
        return again(Problem.of(error))
    return redirect(request, to)


def form_page(request: Request, visitor: Visitor, template: str, typed: Typed, problem: Problem | None, /, **values: Any) -> HTMLResponse:
    """The page of a form: empty, or with what was typed and why nothing was done."""
    status = problem.status if problem else 200
    return page(request, visitor, template, status=status, typed=typed, problem=problem, **values)


def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name)
