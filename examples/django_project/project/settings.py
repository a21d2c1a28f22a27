"""Settings of a small shop. The last three are for Millpond."""

import os

SECRET_KEY = "an example's"
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "project.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_DATABASE", "shop.sqlite3"),
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
    }
}

INSTALLED_APPS = ["orders", "millpond.django"]
MILLPOND = {"broker_url": os.environ.get("SHOP_BROKER", "redis://localhost/0"), "drain_seconds": 10}
TASKS = {"default": {"BACKEND": "millpond.django.MillpondBackend", "QUEUES": ["default"]}}
