"""Sessions, logins and messages, for the admin only.

The API knows no sessions; going through their middleware took it a fifth of a request's time.
"""

from typing import Any

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest
from django.utils.deprecation import MiddlewareMixin

ADMIN = "/admin"


class ForAdmin(MiddlewareMixin):
    """Stands aside for every other address."""

    def __call__(self, request: HttpRequest) -> Any:
        if request.path_info.startswith(ADMIN):
            return super().__call__(request)
        return self.get_response(request)


class AdminSessions(ForAdmin, SessionMiddleware):
    pass


class AdminAuthentication(ForAdmin, AuthenticationMiddleware):
    pass


class AdminMessages(ForAdmin, MessageMiddleware):
    pass
