{{/* How an engine is launched: what `headrace plan-gpu` prints, in the form of a container. */}}

{{- define "headrace.engineImage" -}}
{{- $image := .Values.engine.image }}
{{- if not $image.repository }}
{{- fail (printf "engine.image.repository: name the image of %s in your registry" .Values.engine.kind) }}
{{- end }}
{{- if not (or $image.tag $image.digest) }}
{{- fail "engine.image.tag: name the release; another one may answer differently" }}
{{- end }}
{{- include "headrace.imageName" (dict "image" $image "tag" "") }}
{{- end }}

{{/* The adapters that a server has from its start, as `id=path`. */}}
{{- define "headrace.engineAdapters" -}}
{{- $pairs := list }}
{{- range .Values.engine.adapters }}
{{- $pairs = append $pairs (printf "%s=/adapters/%s" . .) }}
{{- end }}
{{- toJson $pairs }}
{{- end }}

{{- define "headrace.engineCommand" -}}
{{- if eq .Values.engine.kind "vllm" }}
{{- include "headrace.vllmCommand" . }}
{{- else }}
{{- include "headrace.tgiCommand" . }}
{{- end }}
{{- end }}

{{- define "headrace.vllmCommand" -}}
{{- $engine := .Values.engine }}
{{- $adapters := include "headrace.engineAdapters" . | fromJsonArray }}
{{- $words := list "vllm" "serve" $engine.model "--served-model-name" $engine.servedModel }}
{{- if eq $engine.quantize "nf4" }}
{{- $words = concat $words (list "--quantization" "bitsandbytes") }}
{{- end }}
{{- if .Values.adapters.enabled }}
{{- $most := int $engine.maxAdapters }}
{{- $words = concat $words (list "--enable-lora" "--max-loras" (toString $most)) }}
{{- $words = concat $words (list "--max-lora-rank" (toString (int $engine.rank))) }}
{{- $words = concat $words (list "--max-cpu-loras" (toString (mul 2 $most))) }}
{{- if $adapters }}
{{- $words = concat $words (list "--lora-modules") $adapters }}
{{- end }}
{{- end }}
{{- $words = concat $words (list "--max-model-len" (toString (int $engine.context))) }}
{{- $words = concat $words (list "--max-num-seqs" (toString (int $engine.sequences))) }}
{{- $words = concat $words (list "--gpu-memory-utilization" (toString $engine.gpuShare)) }}
{{- $words = concat $words (list "--port" "8000") $engine.extraArgs }}
{{- toYaml $words }}
{{- end }}

{{- define "headrace.tgiCommand" -}}
{{- $engine := .Values.engine }}
{{- $flags := dict "nf4" "bitsandbytes-nf4" "int8" "bitsandbytes" "awq" "awq" }}
{{- if and .Values.adapters.enabled (eq $engine.quantize "awq") }}
{{- fail "engine.quantize: TGI cannot load adapters onto awq weights" }}
{{- end }}
{{- $words := list "text-generation-launcher" "--model-id" $engine.model "--dtype" "bfloat16" }}
{{- with get $flags $engine.quantize }}
{{- $words = concat $words (list "--quantize" .) }}
{{- end }}
{{- if .Values.adapters.enabled }}
{{- /* Its CUDA graphs are captured without adapters: decoding would replay the base model. */}}
{{- $words = concat $words (list "--cuda-graphs" "0") }}
{{- end }}
{{- $answer := div (int $engine.context) 4 }}
{{- $words = concat $words (list "--max-input-tokens" (toString (sub (int $engine.context) $answer))) }}
{{- $words = concat $words (list "--max-total-tokens" (toString (int $engine.context))) }}
{{- $words = concat $words (list "--max-concurrent-requests" (toString (max 64 (int $engine.sequences)))) }}
{{- $words = concat $words (list "--usage-stats" "off" "--port" "8000") $engine.extraArgs }}
{{- toYaml $words }}
{{- end }}

{{- define "headrace.engineEnv" -}}
# Nothing is asked of any hub: the model is on the volume.
- {name: HF_HUB_OFFLINE, value: "1"}
- {name: HOME, value: /cache}
{{- if eq .Values.engine.kind "vllm" }}
- {name: VLLM_NO_USAGE_STATS, value: "1"}
{{- if .Values.adapters.enabled }}
# Opens the loading of adapters to whoever reaches the port: the NetworkPolicy lets only the proxy.
- {name: VLLM_ALLOW_RUNTIME_LORA_UPDATING, value: "True"}
{{- end }}
{{- else if .Values.adapters.enabled }}
# Its prefix cache knows a prompt by its tokens alone: another adapter's would be reused.
- {name: PREFIX_CACHING, value: "0"}
{{- with include "headrace.engineAdapters" . | fromJsonArray }}
- {name: LORA_ADAPTERS, value: {{ join "," . | quote }}}
{{- end }}
{{- end }}
{{- end }}
