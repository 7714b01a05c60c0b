"""One line to type for each command of `headrace`; a test parses them all."""

from __future__ import annotations

EXAMPLES = {
    "serve": "headrace serve --config routes.yaml --port 8080",
    "check": "headrace check routes.yaml",
    "routes explain": "headrace routes explain request.json --tenant acme",
    "plan-gpu": "headrace plan-gpu --base llama-3.1-8b --gpu rtx-3090 --adapters 8 --context 4096",
    "fetch": "headrace fetch s3://models/adapters adapters",
    "record ls": "headrace record ls --json | head",
    "record show": "headrace record show chatcmpl-5f0c2b",
    "record tail": "headrace record tail --follow",
    "record query": "headrace record query 'SELECT domain, count(*) FROM exchanges GROUP BY 1'",
    "record stats": "headrace record stats --json",
    "record export": "headrace record export --format openai-jsonl --where \"domain = 'api'\"",
    "record compact": "headrace record compact --every 600",
    "record erase": "headrace record erase --tenant acme --caller shop",
    "record feedback": (
        "headrace record feedback --exchange chatcmpl-5f0c2b --kind boolean --value false"
    ),
    "report ab": "headrace report ab --domain api --since 7d --html ab.html",
    "report costs": "headrace report costs --json costs.json",
    "keys new": "headrace keys new --tenant acme --name shop --domain bookings --days 90",
    "keys ls": "headrace keys ls --json",
    "keys revoke": "headrace keys revoke sk-headrace-AbCdEfGh",
    "top": "headrace top --url http://127.0.0.1:8080",
    "completion": "headrace completion bash > /etc/bash_completion.d/headrace",
}
