"""What `helm test` runs: python call.py ADDRESS MODEL NAME-OF-THE-KEY'S-VARIABLE"""

import json
import os
import sys
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

address, model, variable = sys.argv[1:]
asking = build_opener(ProxyHandler({}))
with asking.open(f"{address}/ready", timeout=10) as answer:
    print(answer.read().decode())

weather = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
request = {
    "model": model,
    "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
    "tools": [{"type": "function", "function": weather}],
    "tool_choice": "required",
}
headers = {
    "authorization": f"Bearer {os.environ[variable]}",
    "content-type": "application/json",
}
url = f"{address}/v1/chat/completions"
try:
    with asking.open(Request(url, json.dumps(request).encode(), headers), timeout=120) as answer:
        message = json.load(answer)["choices"][0]["message"]
except HTTPError as error:
    sys.exit(f"{error.code}: {error.read().decode()}")
calls = message.get("tool_calls")
print(json.dumps(calls or message))
sys.exit(0 if calls else "no tool was called")
