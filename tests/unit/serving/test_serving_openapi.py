"""What `/openapi.json` says."""

import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from dllm2rec.serving.http.app import create_app
from dllm2rec.serving.http.settings import ServeSettings


@pytest.mark.parametrize("key", [None, SecretStr("a key")])
def test_it_holds_what_it_refers_to_and_says_what_needs_the_key(key: SecretStr | None, bundles: list[Path]) -> None:
    client = TestClient(create_app(ServeSettings(bundle=bundles[0], api_key=key)))
    first, document = (client.get("/openapi.json").json() for _ in range(2))
    assert document == first
    schemas = document["components"]["schemas"]
    referred = re.findall('"#/components/schemas/([^"]*)"', json.dumps(document))
    assert set(referred) == schemas.keys() >= {"Problem", "RecommendRequest"}
    assert json.dumps(document).count('"$ref"') == len(referred)
    assert schemas["Problem"]["required"] == ["title", "status", "detail"]
    schemes = {} if key is None else {"key": {"type": "http", "scheme": "bearer"}}
    assert document["components"].get("securitySchemes", {}) == schemes
    for path, operations in document["paths"].items():
        keyed = key is not None and path.startswith(("/v1/", "/admin/"))
        for operation in operations.values():
            assert operation.get("security", []) == ([{"key": []}] if keyed else [])
