"""The command second_factor gives an admin login its second factor, first or after a loss."""

import io
from argparse import ArgumentParser
from typing import Any

import segno
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction


class Command(BaseCommand):
    help = (
        "Make the second factor (TOTP) of a login of the admin, and show it for an authenticator "
        "app. Whoever sees it has it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument(
            "--replace", action="store_true", help="end the login's other ones: a phone was lost"
        )

    def handle(self, *args: Any, username: str, replace: bool, **options: Any) -> None:
        if not settings.ADMIN_SECOND_FACTOR:
            raise CommandError("Set ADMIN_SECOND_FACTOR=true first, and run manage.py migrate.")
        # The app of this model is installed only with ADMIN_SECOND_FACTOR.
        from django_otp.plugins.otp_totp.models import TOTPDevice

        user = get_user_model().objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is no login {username!r}: manage.py createsuperuser")
        with transaction.atomic():
            devices = TOTPDevice.objects.filter(user=user)
            if replace:
                devices.delete()
            elif devices.exists():
                raise CommandError(f"{username} has a second factor; --replace ends it.")
            device = TOTPDevice.objects.create(user=user, name="authenticator app")
        picture = io.StringIO()
        segno.make(device.config_url).terminal(out=picture, compact=True)
        self.stdout.write(picture.getvalue())
        self.stdout.write(device.config_url)
        self.stdout.write("Scan or copy this into an authenticator app; it isn't shown again.")
