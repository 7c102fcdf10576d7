"""The table that tells this node from others: one row, with its random identity."""

import secrets

from django.db import models


def random_identity() -> str:
    return secrets.token_hex(8)


class Node(models.Model):
    """This node. All its processes use one database, so that they have one identity."""

    identity = models.CharField(max_length=16, default=random_identity)

    def __str__(self) -> str:
        return self.identity
