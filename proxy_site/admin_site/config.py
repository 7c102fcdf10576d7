"""The admin's app, with the site that ADMIN_SECOND_FACTOR asks for."""

from django.conf import settings
from django.contrib.admin.apps import AdminConfig as DjangosAdminConfig


class AdminConfig(DjangosAdminConfig):
    default = False
    default_site = (
        "proxy_site.admin_site.second_factor.SecondFactorSite"
        if settings.ADMIN_SECOND_FACTOR
        else DjangosAdminConfig.default_site
    )
