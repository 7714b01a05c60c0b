"""One line to type for each command of `headrace-trainer`; a test parses them all."""

from __future__ import annotations

EXAMPLES = {
    "import": "headrace-trainer import calls.jsonl --format openai --license MIT --out rows.jsonl",
    "export": "headrace-trainer export rows.jsonl --format sharegpt --out rows.sharegpt.jsonl",
    "label": (
        "headrace-trainer label rows.jsonl --out labelled.jsonl"
        " --base-url https://api.openai.com/v1 --model gpt-4o --budget-tokens 2000000"
    ),
    "recipe ls": "headrace-trainer recipe ls",
    "recipe explain": "headrace-trainer recipe explain recommended",
    "dataset build": "headrace-trainer dataset build --recipe api --out datasets/api",
    "dataset show": "headrace-trainer dataset show datasets/api --html api.html",
    "dataset diff": "headrace-trainer dataset diff datasets/api-1 datasets/api-2",
    "dataset why": "headrace-trainer dataset why datasets/api chatcmpl-5f0c2b",
    "dataset taint": "headrace-trainer dataset taint datasets/api --record record",
    "dataset export": "headrace-trainer dataset export datasets/api --side seen --out seen.jsonl",
    "preflight": "headrace-trainer preflight --recipe api --dataset datasets/api",
    "train": "headrace-trainer train --recipe api --dataset datasets/api --out runs/api",
    "evaluate": (
        "headrace-trainer evaluate --dataset datasets/api"
        " --subject base --subject api-v2 --out figures"
    ),
    "judge run": (
        "headrace-trainer judge run base.json docs-v1.json"
        " --base-url https://api.openai.com/v1 --model gpt-4o --ratings ratings.json --out out.json"
    ),
    "judge rate": (
        "headrace-trainer judge rate base.json docs-v1.json --by Ada --ratings ratings.json"
    ),
    "choose": "headrace-trainer choose --option geo-v8.json --option all-v3.json --in-turn",
    "gate": (
        "headrace-trainer gate --candidate api-v2.json --champion api-v1.json"
        " --recipe api --out verdict.json"
    ),
    "report show": "headrace-trainer report show --candidate api-v2.json --out pages/api-v2",
    "report index": "headrace-trainer report index pages",
    "promote": "headrace-trainer promote api-v2 --verdict verdict.json --record record",
    "convert": "headrace-trainer convert api-v2 --out merged",
    "router train": "headrace-trainer router train --record record --out router.safetensors",
    "prefer": "headrace-trainer prefer api-v2 --recipe api --by dpo --out runs/api-dpo",
    "workflows": "headrace-trainer workflows --subject base --subject api-v2 --times 3",
    "run": "headrace-trainer run --all --dry-run",
    "status": "headrace-trainer status --json",
    "history": "headrace-trainer history --domain api",
    "diff": "headrace-trainer diff api-v1 api-v2",
    "watch": "headrace-trainer watch --once",
    "costs": "headrace-trainer costs --record record --html costs.html",
    "trace": "headrace-trainer trace chatcmpl-5f0c2b --record record",
    "rollback": "headrace-trainer rollback api --reason 'wrong dates'",
    "registry put": "headrace-trainer registry put adapters/api-v2 --registry s3://models/adapters",
    "registry get": "headrace-trainer registry get api-v2 --out adapters",
    "registry ls": "headrace-trainer registry ls --domain api",
    "registry history": "headrace-trainer registry history --domain api",
    "registry keygen": "headrace-trainer registry keygen bundles.pem",
    "registry sign": "headrace-trainer registry sign adapters/api-v2 --key bundles.pem",
    "registry taint": "headrace-trainer registry taint --record record",
    "registry export": "headrace-trainer registry export adapters/api-v2 --format oci --out oci",
}
