"""The command write_openapi makes openapi.json from the hand-written YAML (needs the dev extra)."""

import json
from typing import Any

import yaml
from django.core.management.base import BaseCommand

from proxy_site.openapi.api_document import FILE, SOURCE


class Command(BaseCommand):
    help = "Write proxy_site/openapi/openapi.json from openapi.yaml."

    def handle(self, *args: Any, **options: Any) -> None:
        FILE.write_text(render(), encoding="utf-8")
        self.stdout.write(f"wrote {FILE}")


def render() -> str:
    """Return the text of openapi.json."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def document() -> dict[str, Any]:
    """Return the OpenAPI document of the YAML, with its aliases resolved."""
    return dict(yaml.safe_load(SOURCE.read_text(encoding="utf-8")))
