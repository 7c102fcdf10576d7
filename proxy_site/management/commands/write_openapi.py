"""Makes the file that GET /openapi.json serves of the hand-written YAML (needs the dev extra)."""

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
    """The document as the file has it."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def document() -> dict[str, Any]:
    """The OpenAPI document, with its aliases written out."""
    return dict(yaml.safe_load(SOURCE.read_text(encoding="utf-8")))
