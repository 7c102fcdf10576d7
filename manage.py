#!/usr/bin/env python
"""Runs Django's commands and the node's own."""

import os
import sys

from proxy_site import command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proxy_site.settings")
    command_line.run(sys.argv)
