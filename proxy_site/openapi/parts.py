"""What descriptions are put together from: views, parameters, headers, answers."""

from typing import Any

from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.views import APIView

from proxy_site.openapi.shapes import Shape, ref

AWAY = "What the node needs for it can't be reached."

# What every operation may answer besides.
USUAL = {405: "Another method.", 406: "The Accept header refuses JSON."}


class ViewDescription(OpenApiViewExtension):
    """Describes the view ``target_class``: ``actions`` has what extend_schema takes, by method.

    In ``responses``, a text describes an error.
    """

    target_class: Any = None
    actions: dict[str, dict[str, Any]] = {}

    def view_replacement(self) -> type[APIView]:
        methods = {name: _described(**description) for name, description in self.actions.items()}
        replacement: type[APIView] = type("Described", (self.target,), methods)
        return replacement


def _described(*, responses: dict[int, OpenApiResponse | str], **description: Any) -> Any:
    def action(self: Any, request: Any) -> Any:
        raise NotImplementedError("a description isn't called")

    answers = {
        code: shaped("Error", what) if isinstance(what, str) else what
        for code, what in sorted({**USUAL, **responses}.items())
    }
    return extend_schema(responses=answers, **description)(action)


def shaped(name: str, description: str) -> OpenApiResponse:
    return OpenApiResponse(ref(name), description=description)


def bare(description: str) -> OpenApiResponse:
    return OpenApiResponse(description=description)


def example(name: str, value: Any, code: int = 200) -> OpenApiExample:
    return OpenApiExample(name, value, response_only=True, status_codes=[str(code)])


def parameter(
    name: str, schema: Shape, description: str, *, location: str = "query", **more: Any
) -> OpenApiParameter:
    return OpenApiParameter(name, schema, location, description=description, **more)  # type: ignore[arg-type]


def header(
    name: str, description: str, *codes: int, schema: Shape | None = None, always: bool = True
) -> OpenApiParameter:
    """A header of the answers with these codes; ``always``: of each."""
    return OpenApiParameter(
        name,
        schema or {"type": "string"},
        OpenApiParameter.HEADER,
        required=always,
        description=description,
        response=list(codes),
    )


def retry_after(*codes: int) -> OpenApiParameter:
    seconds = {"type": "integer", "minimum": 1}
    return header("Retry-After", "Seconds after which to try again.", *codes, schema=seconds)


def any_origin(*codes: int) -> OpenApiParameter:
    return header("Access-Control-Allow-Origin", "Pages of any origin may read it.", *codes)


def cache_control(*codes: int) -> OpenApiParameter:
    return header("Cache-Control", "How long it may be kept.", *codes)


def etag(*codes: int) -> OpenApiParameter:
    return header("ETag", "Names this state of the market: for If-None-Match and since.", *codes)


def data_age(*codes: int) -> OpenApiParameter:
    return header(
        "X-Data-Age",
        "How many seconds ago the node last heard from a trusted source; left out before the first "
        "time.",
        *codes,
        schema={"type": "integer", "minimum": 0},
        always=False,
    )
