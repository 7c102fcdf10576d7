"""The admin with a second factor: a password alone, also a stolen session's, opens nothing."""

from django_otp.admin import OTPAdminSite


class SecondFactorSite(OTPAdminSite):  # type: ignore[misc]  # it has no types
    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)
