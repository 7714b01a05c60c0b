// Vercel's AI SDK with `@ai-sdk/azure`, deployment in the path.
import { createAzure } from "@ai-sdk/azure";
import { programOf } from "./ai_sdk.js";
import { main } from "./program.js";

function azure(q) {
  const provider = createAzure({
    baseURL: `${q.root}/openai`,
    apiKey: q.key,
    apiVersion: "2024-10-21",
    useDeploymentBasedUrls: true,
    headers: q.headers,
  });
  return provider.chat(q.model);
}

await main(programOf(["ai", "@ai-sdk/azure", "zod"], azure));
