"""Writes the API's description to the file that GET /openapi.json serves (needs the dev extra)."""

from typing import Any

from django.core.management.base import BaseCommand

from proxy_site.openapi.api_document import FILE
from proxy_site.openapi.document import render


class Command(BaseCommand):
    help = "Write proxy_site/openapi/openapi.json from the views."

    def handle(self, *args: Any, **options: Any) -> None:
        FILE.write_text(render(), encoding="utf-8")
        self.stdout.write(f"wrote {FILE}")
