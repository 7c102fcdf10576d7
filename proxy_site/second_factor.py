"""The admin with a second factor: a password alone opens nothing."""

from typing import Any

from django_otp import devices_for_user
from django_otp.admin import OTPAdminAuthenticationForm, OTPAdminSite


class SecondFactorForm(OTPAdminAuthenticationForm):  # type: ignore[misc]  # it has no types
    def clean_otp(self, user: Any) -> None:
        """A login has one device (manage.py second_factor), so nobody is asked which."""
        if user is not None and not self.cleaned_data.get("otp_device"):
            for device in devices_for_user(user):
                self.cleaned_data["otp_device"] = device.persistent_id
        super().clean_otp(user)


class SecondFactorSite(OTPAdminSite):  # type: ignore[misc]  # it has no types
    login_form = SecondFactorForm

    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)
