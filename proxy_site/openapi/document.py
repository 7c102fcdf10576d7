"""The whole document."""

import json
import tomllib
from typing import Any

from django.conf import settings
from django.test.utils import override_settings
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.settings import patched_settings

from proxy_site.openapi import doors, reads
from proxy_site.openapi.shapes import SHAPES

DESCRIPTION = """\
Daily bars of Vietnam's stock market. Prices are in VND (points for an index), volumes in shares,
days as the exchange dates them. A read of the whole market is gzipped for who accepts it. Unknown
parameters are ignored, and one with an empty value is as if left out. HEAD is answered wherever GET
is."""

# drf-spectacular knows an extension from when its class was made.
EXTENSIONS = (*reads.EXTENSIONS, *doors.EXTENSIONS)


class PlainSchema(AutoSchema):
    """drf-spectacular's, for views that have no serializers."""

    def _is_list_view(self, serializer: Any = None) -> bool:
        """Our ``list`` answers what is described, not an array of it."""
        return False

    def _get_request_body(self, direction: Any = "request") -> Any:
        body = super()._get_request_body(direction)
        return body and {**body, "required": True}


def render() -> str:
    """The document as the file has it."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def document() -> dict[str, Any]:
    project = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text("utf-8"))["project"]
    about = {
        "TITLE": project["name"],
        "VERSION": project["version"],
        "DESCRIPTION": DESCRIPTION,
        "LICENSE": {"name": project["license"]},
        "OAS_VERSION": "3.1.0",
        "APPEND_COMPONENTS": {"schemas": SHAPES},
        "POSTPROCESSING_HOOKS": [],
        "SCHEMA_PATH_PREFIX": "/",
    }
    described = {
        **settings.REST_FRAMEWORK,
        "DEFAULT_SCHEMA_CLASS": f"{PlainSchema.__module__}.{PlainSchema.__name__}",
    }
    with override_settings(REST_FRAMEWORK=described), patched_settings(about):
        return dict(SchemaGenerator().get_schema(public=True))
