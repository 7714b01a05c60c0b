// openai-node's AzureOpenAI: the deployment's name in the path, the key in `api-key`.
import { AzureOpenAI } from "openai";
import { programOf } from "./openai.js";
import { main } from "./program.js";

function azure(q) {
  return new AzureOpenAI({
    endpoint: q.root,
    apiKey: q.key,
    apiVersion: "2024-10-21",
    deployment: q.model,
    maxRetries: q.retries,
    defaultHeaders: q.headers,
  });
}

await main(programOf(azure));
