"""Every mistake of a client as an error in OpenAI's shape: what is wrong, and what to do."""

import difflib

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from toolkit.run.command import UserError
from toolkit.serving.engine import Busy
from toolkit.serving.request import Refusal

KINDS = (Refusal, UserError, Busy, RequestValidationError, HTTPException, Exception)
NO_JSON = "the body cannot be read: it must be JSON in UTF-8"
NOT_SAID = (
    "the request does not say that its body is JSON; add the header Content-Type: application/json"
)
MOST_SHOWN = 100  # characters of an address or of a field's name


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """Answer any error of `KINDS`."""
    match error:
        case Refusal():
            refusal = error
        case UserError():
            refusal = Refusal(str(error))
        case Busy():
            refusal = Refusal(str(error), 503, "server_busy")
        case RequestValidationError():
            refusal = first_fault(request, error)
        case HTTPException():
            refusal = unrouted(request, error)
        case _:
            refusal = Refusal("the server failed; its log says why", 500)
    return as_answer(refusal, getattr(error, "headers", None))


def as_answer(refusal: Refusal, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(refusal.body(), refusal.status, headers)


def unrouted(request: Request, error: HTTPException) -> Refusal:
    """Return what is wrong with a request that no function of ours was given."""
    path = request.url.path[:MOST_SHOWN]
    if error.status_code == 404:
        routes = [
            route for route in request.app.routes if route.path.startswith(("/v1", "/health"))
        ]
        known = [f"{min(route.methods)} {route.path.replace(':path', '')}" for route in routes]
        return Refusal(
            f"{request.method} {path}: no such address; there are {', '.join(known)}", 404
        )
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return Refusal(f"{path} wants {allowed}, not {request.method}", 405)
    return Refusal(NO_JSON, error.status_code)


def first_fault(request: Request, error: RequestValidationError) -> Refusal:
    """Return what is wrong first, naming the field."""
    fault = error.errors()[0]
    where = [str(part)[:MOST_SHOWN] for part in fault["loc"][1:]]
    name, field = ".".join(where), where[0] if where else None
    if fault["type"] == "json_invalid":
        return Refusal(f"{NO_JSON}; {fault['ctx']['error']} at character {name}")
    if not where and isinstance(error.body, bytes):
        return Refusal(NOT_SAID, 415)
    if not where and fault["type"] in ("missing", "model_attributes_type", "dict_type"):
        return Refusal('the body must be a JSON object: {"model": "tuned", ...}')
    if fault["type"] == "extra_forbidden":
        known = fields_of(request) if len(where) == 1 else []
        return Refusal(f"{name}: unknown field; {advice(name, known)}", param=field)
    message = fault["msg"].removeprefix("Value error, ")
    if not where and ": " in message:  # fields that do not fit together: the message names them
        return Refusal(message, param=message.split(":")[0].split(",")[0])
    return Refusal(f"{name or 'body'}: {message}", param=field)


def fields_of(request: Request) -> list[str]:
    """Return the fields that the address takes."""
    kinds = getattr(request.scope.get("endpoint"), "__annotations__", {}).values()
    bodies = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return [name for body in bodies for name in body.model_fields]


def advice(name: str, known: list[str]) -> str:
    if close := difflib.get_close_matches(name, known, 1):
        return f"did you mean {close[0]}?"
    return f"leave it out; there are {', '.join(known)}" if known else "leave it out"
