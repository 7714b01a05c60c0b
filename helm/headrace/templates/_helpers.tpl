{{- define "headrace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of the resources: 63 characters, since it becomes a DNS label. */}}
{{- define "headrace.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "headrace.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "headrace.labels" -}}
helm.sh/chart: {{ include "headrace.chart" . }}
{{ include "headrace.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Never to be changed: Kubernetes refuses another selector for a Deployment that exists. */}}
{{- define "headrace.selectorLabels" -}}
app.kubernetes.io/name: {{ include "headrace.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "headrace.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "headrace.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "headrace.image" -}}
{{- include "headrace.imageName" (dict "image" .Values.image "tag" .Chart.AppVersion) }}
{{- end }}

{{/* routes.yaml. What the pod would refuse at its start is refused here. */}}
{{- define "headrace.routes" -}}
{{- if not (dig "auth" "keys" list .Values.routes) }}
{{- fail "routes.auth.keys must name a key: without one Headrace does not listen on an address that others reach" }}
{{- end }}
{{- $routes := deepCopy .Values.routes }}
{{- if include "headrace.hasEngine" . }}
{{- $found := false }}
{{- range $name, $backend := $routes.backends }}
{{- if eq $backend.kind $.Values.engine.kind }}
{{- $found = true }}
{{- $_ := set $routes.backends $name (mustMerge $backend (include "headrace.engineBackend" $ | fromYaml)) }}
{{- end }}
{{- end }}
{{- if not $found }}
{{- fail (printf "engine.kind is %s, but no backend of routes.backends is of that kind: nothing would be asked of the engines" .Values.engine.kind) }}
{{- end }}
{{- end }}
{{- toYaml $routes }}
{{- end }}

{{/* Seconds that a pod has to stop: load balancers, answers, record, and some to spare. */}}
{{- define "headrace.terminationGracePeriodSeconds" -}}
{{- $grace := dig "limits" "grace_s" 10 .Values.routes | float64 | ceil | int }}
{{- add .Values.preStopSleepSeconds (mul 2 $grace) 5 }}
{{- end }}

{{/* Whether a second pod could not have the volume: then the old one goes before the new one comes. */}}
{{- define "headrace.isAlone" -}}
{{- if and .Values.persistence.enabled (not (has "ReadWriteMany" .Values.persistence.accessModes)) }}
{{- if gt (int .Values.replicaCount) 1 }}
{{- fail "replicaCount above 1 with persistence.enabled needs persistence.accessModes: [ReadWriteMany]" }}
{{- end }}
{{- true }}
{{- end }}
{{- end }}

{{/* An image's name: digest over tag over `tag`, the default. Takes (dict "image" … "tag" …). */}}
{{- define "headrace.imageName" -}}
{{- if .image.digest }}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else }}
{{- printf "%s:%s" .image.repository (default .tag .image.tag) }}
{{- end }}
{{- end }}

{{/* Labels of one part: (dict "root" $ "component" "engine"). Selectors are a subset of them. */}}
{{- define "headrace.componentLabels" -}}
helm.sh/chart: {{ include "headrace.chart" .root }}
{{ include "headrace.componentSelector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* Not the proxy's selector: its Service would send requests to these pods. */}}
{{- define "headrace.componentSelector" -}}
app.kubernetes.io/name: {{ include "headrace.name" .root }}-{{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Name of a part's resources, short enough for a number behind it. */}}
{{- define "headrace.componentName" -}}
{{- printf "%s-%s" (include "headrace.fullname" .root | trunc 48 | trimSuffix "-") .component }}
{{- end }}

{{- define "headrace.hasEngine" -}}
{{- if ne .Values.engine.kind "none" }}true{{ end }}
{{- end }}

{{/* Whether the proxy may ask the cluster to restart engines: TGI loads adapters no other way. */}}
{{- define "headrace.restartsEngines" -}}
{{- if eq .Values.engine.kind "tgi" }}true{{ end }}
{{- end }}

{{/* What the routes say of the engines, completed: their addresses, and who restarts them. */}}
{{- define "headrace.engineBackend" -}}
{{- $name := include "headrace.componentName" (dict "root" . "component" "engine") }}
replicas:
  {{- range $n := until (int .Values.engine.replicas) }}
  - http://{{ $name }}-{{ $n }}:8000
  {{- end }}
adapters_there: /adapters
{{- if include "headrace.restartsEngines" . }}
pool:
  restart: {kind: kubernetes, workload: "deployment/{host}", namespace: {{ .Release.Namespace }}, kubectl: null}
{{- end }}
{{- end }}

{{/* The volume of adapter bundles and champions.json. */}}
{{- define "headrace.adaptersVolume" -}}
- name: adapters
  persistentVolumeClaim:
    claimName: {{ default (include "headrace.componentName" (dict "root" . "component" "adapters")) .Values.adapters.existingClaim }}
{{- end }}

{{/* Pods of the parts: who pulls, as whom they run. */}}
{{- define "headrace.podBasics" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end }}

{{/* Whether the record lies where a second pod can read it. */}}
{{- define "headrace.sharesRecord" -}}
{{- if and .Values.persistence.enabled (has "ReadWriteMany" .Values.persistence.accessModes) (dig "record" "directory" "" .Values.routes) }}true{{ end }}
{{- end }}

{{/* Seconds that an answer may take at most: what stands before the proxy must wait as long. */}}
{{- define "headrace.longestSeconds" -}}
{{- dig "limits" "longest_s" 1800 .Values.routes | float64 | ceil | int }}
{{- end }}

{{/* The reference to the first key: ${NAME}. */}}
{{- define "headrace.firstKey" -}}
{{- with dig "auth" "keys" list .Values.routes }}{{ (first .).key }}{{ end }}
{{- end }}
