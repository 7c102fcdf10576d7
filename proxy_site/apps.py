from django.apps import AppConfig


class ProxySiteConfig(AppConfig):
    name = "proxy_site"
