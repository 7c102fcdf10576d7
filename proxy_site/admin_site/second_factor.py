"""The admin with a second factor, in which a password alone opens nothing."""

from typing import Any

from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.signals import user_login_failed
from django.core.exceptions import ValidationError
from django_otp import devices_for_user
from django_otp.admin import OTPAdminAuthenticationForm, OTPAdminSite


class SecondFactorForm(OTPAdminAuthenticationForm):  # type: ignore[misc]  # it has no types
    error_messages = {
        **AdminAuthenticationForm.error_messages,
        "invalid_login": (
            "Please enter the name and password of a staff account, and its code of this moment. "
            "After a wrong code wait a little."
        ),
    }

    def clean_otp(self, user: Any) -> None:
        """Check the code; a wrong one is a failed login like a wrong password.

        Both are answered in the same words and both count for the lockout, so that a guesser never
        learns that a password was right. A login has one device (manage.py second_factor), so the
        form doesn't ask which.
        """
        if user is not None and not self.cleaned_data.get("otp_device"):
            for device in devices_for_user(user):
                self.cleaned_data["otp_device"] = device.persistent_id
        try:
            super().clean_otp(user)
        except ValidationError:
            # The page would show the user's devices, and the right password again.
            self.user_cache = None
            self.fields["password"].widget.render_value = False
            user_login_failed.send(
                sender=__name__,
                credentials={"username": self.cleaned_data.get("username")},
                request=self.request,
            )
            raise self.get_invalid_login_error() from None


class SecondFactorSite(OTPAdminSite):  # type: ignore[misc]  # it has no types
    login_form = SecondFactorForm

    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)
