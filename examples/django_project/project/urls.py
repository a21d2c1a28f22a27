"""The routes of the shop."""

from django.urls import path
from orders import views

urlpatterns = [
    path("orders/", views.order),
    path("reports/", views.report),
    path("reports/<str:id>/", views.result),
]
