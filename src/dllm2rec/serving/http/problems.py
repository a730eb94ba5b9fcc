"""Errors as `application/problem+json` (RFC 9457)."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from dllm2rec.core.errors import UserError, first_problem

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """What a refused request gets.

    Attributes:
        title: the status in words.
        status: of HTTP.
        detail: what is wrong, and with which field.
    """

    title: str
    status: int
    detail: str


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Build the answer to a request that is refused."""
    content = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail).model_dump()
    return JSONResponse(content, status, headers, MEDIA_TYPE)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the refusals of a route to OpenAPI."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def add_problems(app: FastAPI) -> None:
    """Let every error of an application leave as a problem."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return problem(400, f"the body is not JSON: {first['ctx']['error']}, at character {first['loc'][-1]}")
        if first["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):
            return problem(415, "send the body with the header Content-Type: application/json")
        return problem(422, first_problem(error))

    @app.exception_handler(UserError)
    async def wrong(_request: Request, error: UserError) -> JSONResponse:
        return problem(422, str(error))

    @app.exception_handler(Exception)  # which goes on to the server's log
    async def failed(_request: Request, _error: Exception) -> JSONResponse:
        return problem(500, "a defect of the server, whose log says more")

    @app.exception_handler(HTTPException)
    async def refused(_request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        return problem(error.status_code, str(error.detail), headers)
