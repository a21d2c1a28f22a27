"""Describe the objects of KEDA that deploy/kubernetes/ uses, field by field, as its reference does.

Source: keda.sh/docs, "ScaledObject specification", "Authentication" and the scaler `metrics-api`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Named(_Exact):
    name: str


class _Metadata(_Named):
    namespace: str
    labels: dict[str, str] = Field(default_factory=dict)


class _MetricsApi(_Exact):
    url: HttpUrl
    valueLocation: str
    targetValue: Annotated[str, Field(pattern=r"^\d+(\.\d+)?$")]
    activationTargetValue: Annotated[str, Field(pattern=r"^\d+(\.\d+)?$")] | None = None
    authMode: Literal["basic", "bearer", "tls", "apiKey"] | None = None


class _Trigger(_Exact):
    type: Literal["metrics-api"]
    metricType: Literal["AverageValue", "Value"]
    metadata: _MetricsApi
    authenticationRef: _Named


class _Policy(_Exact):
    type: Literal["Pods", "Percent"]
    value: int
    periodSeconds: Annotated[int, Field(ge=1, le=1800)]


class _Rules(_Exact):
    stabilizationWindowSeconds: Annotated[int, Field(ge=0, le=3600)]
    policies: list[_Policy]


class _Behavior(_Exact):
    scaleDown: _Rules


class _Autoscaler(_Exact):
    behavior: _Behavior


class _Advanced(_Exact):
    horizontalPodAutoscalerConfig: _Autoscaler


class _Scaling(_Exact):
    scaleTargetRef: _Named
    minReplicaCount: int
    maxReplicaCount: int
    advanced: _Advanced
    triggers: list[_Trigger]


class ScaledObject(_Exact):
    """A deployment that KEDA scales."""

    apiVersion: Literal["keda.sh/v1alpha1"]
    kind: Literal["ScaledObject"]
    metadata: _Metadata
    spec: _Scaling


class _SecretKey(_Named):
    parameter: Literal["username", "password"]
    key: str


class _Authentication(_Exact):
    secretTargetRef: list[_SecretKey]


class TriggerAuthentication(_Exact):
    """The login of a trigger."""

    apiVersion: Literal["keda.sh/v1alpha1"]
    kind: Literal["TriggerAuthentication"]
    metadata: _Metadata
    spec: _Authentication


KINDS: dict[str, type[BaseModel]] = {
    "ScaledObject": ScaledObject,
    "TriggerAuthentication": TriggerAuthentication,
}


def validate(each: dict[str, Any]) -> None:
    """Raise `ValidationError` unless this is one of KEDA's objects, with known fields only."""
    KINDS[each["kind"]].model_validate(each)
