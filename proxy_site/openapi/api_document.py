"""The API document, GET /openapi.json, describes the API for programs.

It is written by hand in openapi.yaml, and ``make openapi`` makes openapi.json from it; a web
process serves that file, and reads no YAML.
"""

import functools
import hashlib
from pathlib import Path

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from rest_framework.request import Request

from tickers.viewset import QuickViewSet

SOURCE = Path(__file__).with_name("openapi.yaml")
FILE = SOURCE.with_suffix(".json")


class ApiDocument(QuickViewSet):
    def list(self, request: Request) -> HttpResponseBase:
        body, etag = document()
        response: HttpResponseBase | None = get_conditional_response(request._request, etag=etag)
        if response is None or response.status_code != 304:
            response = HttpResponse(body, content_type="application/json")
        response["ETag"] = etag
        response["Cache-Control"] = "public, max-age=300"
        response["Access-Control-Allow-Origin"] = "*"
        return response


@functools.cache
def document() -> tuple[bytes, str]:
    """Return the file's bytes and their ETag."""
    body = FILE.read_bytes()
    return body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'
